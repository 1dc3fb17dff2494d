/* The part of LLVM that its C interface lacks: pass registration, loops and scalar evolution, splitting blocks,
 * diagnostics. Everything that decides anything is Rust; these functions only look up or rewrite what they are told. */
#include "llvm-c/Core.h"
#include "llvm/Analysis/BlockFrequencyInfo.h"
#include "llvm/Analysis/LoopInfo.h"
#include "llvm/Analysis/ScalarEvolution.h"
#include "llvm/Analysis/ScalarEvolutionExpressions.h"
#include "llvm/Demangle/Demangle.h"
#include "llvm/IR/CFG.h"
#include "llvm/IR/DebugInfo.h"
#include "llvm/IR/DebugInfoMetadata.h"
#include "llvm/IR/DiagnosticInfo.h"
#include "llvm/IR/DiagnosticPrinter.h"
#include "llvm/IR/Dominators.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Operator.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Transforms/Utils/BasicBlockUtils.h"
#include "llvm/Transforms/Utils/LoopSimplify.h"
#include "llvm/Transforms/Utils/ModuleUtils.h"
#include "llvm/Transforms/Utils/ScalarEvolutionExpander.h"
#if LLVM_VERSION_MAJOR >= 22
#include "llvm/Plugins/PassPlugin.h"
#else
#include "llvm/Passes/PassPlugin.h"
#endif

using namespace llvm;

/* Implemented in Rust. `prelink`: this run only leaves a note for the link-time run. */
extern "C" void vernal_run_module(LLVMModuleRef M, FunctionAnalysisManager *FAM, int Prelink);
/* Implemented in Rust: lowers the range checks. */
extern "C" void vernal_lower_module(LLVMModuleRef M);
/* Implemented in Rust: gives allocations the types of what they allocate. */
extern "C" void vernal_type_module(LLVMModuleRef M);

namespace {

/* Turns the range checks into plain arithmetic. They travel through the optimiser as calls, because it would rewrite a
 * shift and compare into a mask and compare with two 64-bit constants, and keep those in callee-saved registers. */
struct LowerPass : PassInfoMixin<LowerPass> {
  PreservedAnalyses run(Module &M, ModuleAnalysisManager &) {
    vernal_lower_module(wrap(&M));
    return PreservedAnalyses::none();
  }
  static bool isRequired() { return true; }
};

/* Whether the pass that is running on this thread may ask for block frequencies. Not at -O0: nothing else there computes
 * them, and on unoptimised functions of a Rust test harness LLVM 22.1.2 stopped with an illegal instruction doing so. */
thread_local bool Guess = true;

struct VernalPass : PassInfoMixin<VernalPass> {
  int Prelink;
  bool Optimised;
  VernalPass(int Prelink, bool Optimised) : Prelink(Prelink), Optimised(Optimised) {}
  PreservedAnalyses run(Module &M, ModuleAnalysisManager &MAM) {
    Guess = Optimised;
    auto &FAM = MAM.getResult<FunctionAnalysisManagerModuleProxy>(M).getManager();
    vernal_run_module(wrap(&M), &FAM, Prelink);
    return PreservedAnalyses::none();
  }
  static bool isRequired() { return true; }
};

/* Reads debug information, so it comes before everything that moves or merges code. */
struct TypesPass : PassInfoMixin<TypesPass> {
  PreservedAnalyses run(Module &M, ModuleAnalysisManager &) {
    vernal_type_module(wrap(&M));
    return PreservedAnalyses::none();
  }
  static bool isRequired() { return true; }
};

void add(ModulePassManager &MPM, int Prelink, bool Optimised) {
  if (!Prelink)
    MPM.addPass(createModuleToFunctionPassAdaptor(LoopSimplifyPass()));
  MPM.addPass(VernalPass(Prelink, Optimised));
}

class Warning : public DiagnosticInfo {
  const Instruction &I;
  StringRef Text;

public:
  Warning(int Kind, const Instruction &I, StringRef Text)
      : DiagnosticInfo(DiagnosticKind(Kind), DS_Warning), I(I), Text(Text) {}
  void print(DiagnosticPrinter &DP) const override {
    if (const DebugLoc &DL = I.getDebugLoc())
      DP << DL->getFilename() << ":" << DL->getLine() << ": ";
    DP << "vernal: in function '" << I.getFunction()->getName() << "': " << Text;
  }
};

} // namespace

/* Whether the running pipeline is one before an LTO link. LLVM 22 says so; 19 has to be asked by the module flag that
 * clang sets, and on the second visit (fat LTO objects) Rust sees its own note. */
extern "C" void vernal_shim_register(PassBuilder &PB) {
  PB.registerPipelineParsingCallback(
      [](StringRef Name, ModulePassManager &MPM, ArrayRef<PassBuilder::PipelineElement>) {
        if (Name == "vernal")
          add(MPM, 0, true), MPM.addPass(LowerPass());
        else if (Name == "vernal-prelink")
          add(MPM, 1, true);
        else if (Name == "vernal-types")
          MPM.addPass(TypesPass());
        else
          return false;
        return true;
      });
  PB.registerPipelineStartEPCallback(
      [](ModulePassManager &MPM, OptimizationLevel) { MPM.addPass(TypesPass()); });
#if LLVM_VERSION_MAJOR >= 20
  PB.registerOptimizerEarlyEPCallback(
      [](ModulePassManager &MPM, OptimizationLevel Level, ThinOrFullLTOPhase Phase) {
        bool Prelink = Phase == ThinOrFullLTOPhase::ThinLTOPreLink || Phase == ThinOrFullLTOPhase::FullLTOPreLink;
        add(MPM, Prelink, Level != OptimizationLevel::O0);
      });
  PB.registerOptimizerLastEPCallback(
      [](ModulePassManager &MPM, OptimizationLevel, ThinOrFullLTOPhase) { MPM.addPass(LowerPass()); });
#else
  PB.registerOptimizerLastEPCallback([](ModulePassManager &MPM, OptimizationLevel) { MPM.addPass(LowerPass()); });
  PB.registerOptimizerEarlyEPCallback(
      [](ModulePassManager &MPM, OptimizationLevel Level) { add(MPM, 2, Level != OptimizationLevel::O0); });
#endif
  PB.registerFullLinkTimeOptimizationLastEPCallback(
      [](ModulePassManager &MPM, OptimizationLevel Level) {
        add(MPM, 0, Level != OptimizationLevel::O0), MPM.addPass(LowerPass());
      });
}

extern "C" uint32_t vernal_shim_api_version() { return LLVM_PLUGIN_API_VERSION; }

/* The value that `Ptr` is computed from by in-bounds address arithmetic with constant offsets; adds them up. */
extern "C" LLVMValueRef vernal_shim_base(LLVMModuleRef M, LLVMValueRef Ptr, int64_t *Offset) {
  const DataLayout &DL = unwrap(M)->getDataLayout();
  Value *V = unwrap(Ptr);
  *Offset = 0;
  while (auto *G = dyn_cast<GEPOperator>(V)) {
    APInt Off(DL.getIndexTypeSizeInBits(G->getType()), 0);
    if (!G->isInBounds() || !G->accumulateConstantOffset(DL, Off) || !Off.isSignedIntN(40))
      break;
    if (*Offset + Off.getSExtValue() != (*Offset + Off.getSExtValue()) << 20 >> 20)
      break;
    *Offset += Off.getSExtValue();
    V = G->getPointerOperand();
  }
  return wrap(V);
}

/* The value that `Ptr` is computed from by in-bounds address arithmetic: the same object. */
extern "C" LLVMValueRef vernal_shim_root(LLVMValueRef Ptr) {
  Value *V = unwrap(Ptr);
  while (auto *G = dyn_cast<GEPOperator>(V)) {
    if (!G->isInBounds())
      break;
    V = G->getPointerOperand();
  }
  return wrap(V);
}

extern "C" uint64_t vernal_shim_store_size(LLVMModuleRef M, LLVMTypeRef T) {
  TypeSize S = unwrap(M)->getDataLayout().getTypeStoreSize(unwrap(T));
  return S.isScalable() ? UINT64_MAX : S.getFixedValue();
}

/* Whether calls of F may end up in another definition than the one in this module. */
extern "C" int vernal_shim_is_interposable(LLVMValueRef F) {
  return unwrap<Function>(F)->isInterposable();
}

extern "C" int vernal_shim_may_write(LLVMValueRef I) {
  auto *Call = cast<CallBase>(unwrap(I));
  return Call->mayWriteToMemory() && !Call->onlyAccessesInaccessibleMemory();
}

/* Whether an argument of an intrinsic call may be written through. */
extern "C" int vernal_shim_arg_written(LLVMValueRef I, unsigned Arg) {
  auto *Call = cast<CallBase>(unwrap(I));
  return !Call->onlyReadsMemory(Arg) && !Call->doesNotAccessMemory(Arg);
}

extern "C" LLVMTypeRef vernal_shim_param_elementtype(LLVMValueRef I, unsigned Arg) {
  return wrap(cast<CallBase>(unwrap(I))->getParamElementType(Arg));
}

extern "C" int vernal_shim_is_musttail(LLVMValueRef I) {
  auto *Call = dyn_cast<CallInst>(unwrap(I));
  return Call && Call->isMustTailCall();
}

extern "C" int vernal_shim_arg_byval(LLVMValueRef Arg) {
  auto *A = cast<Argument>(unwrap(Arg));
  return A->hasByValAttr() || A->hasPreallocatedAttr() || A->hasInAllocaAttr();
}

/* How often a block runs per call of its function, as far as LLVM can guess. */
extern "C" double vernal_shim_frequency(FunctionAnalysisManager *FAM, LLVMValueRef F, LLVMBasicBlockRef B) {
  if (!Guess)
    return 1.0;
  auto &BFI = FAM->getResult<BlockFrequencyAnalysis>(*unwrap<Function>(F));
  uint64_t Entry = BFI.getEntryFreq().getFrequency();
  return Entry ? double(BFI.getBlockFreq(unwrap(B)).getFrequency()) / double(Entry) : 1.0;
}

/* ---- loops ---- */

extern "C" void vernal_shim_loops(FunctionAnalysisManager *FAM, LLVMValueRef F, void *Ctx,
                                  void (*Visit)(void *Ctx, void *Loop, void *Parent, int Dedicated,
                                                const LLVMBasicBlockRef *Blocks, size_t NBlocks,
                                                const LLVMBasicBlockRef *Exits, size_t NExits)) {
  auto &LI = FAM->getResult<LoopAnalysis>(*unwrap<Function>(F));
  for (Loop *L : LI.getLoopsInPreorder()) {
    SmallVector<LLVMBasicBlockRef, 16> Blocks, Exits;
    SmallVector<BasicBlock *, 8> Unique;
    for (BasicBlock *B : L->blocks())
      Blocks.push_back(wrap(B));
    L->getUniqueExitBlocks(Unique);
    for (BasicBlock *B : Unique)
      Exits.push_back(wrap(B));
    bool Dedicated = L->hasDedicatedExits();
    for (BasicBlock *B : Unique)
      Dedicated &= B->getFirstInsertionPt() != B->end();
    Visit(Ctx, L, L->getParentLoop(), Dedicated, Blocks.data(), Blocks.size(), Exits.data(), Exits.size());
  }
}

/* If `Store` writes `Size` bytes at addresses that advance by a constant step on every iteration of `LoopPtr`, which has
 * one exit and a trip count known before it is entered: computes, at the start of the exit block, the first byte and the
 * length of what the whole loop writes. */
extern "C" int vernal_shim_loop_range(FunctionAnalysisManager *FAM, void *LoopPtr, LLVMValueRef Store, LLVMValueRef Ptr,
                                      uint64_t Size, LLVMValueRef *First, LLVMValueRef *Length) {
  auto *L = static_cast<Loop *>(LoopPtr);
  auto *I = cast<Instruction>(unwrap(Store));
  Function &F = *I->getFunction();
  auto &SE = FAM->getResult<ScalarEvolutionAnalysis>(F);
  auto &DT = FAM->getResult<DominatorTreeAnalysis>(F);
  BasicBlock *Latch = L->getLoopLatch(), *Exit = L->getExitBlock();
  if (!Latch || !Exit || L->getExitingBlock() != Latch || !L->getLoopPreheader())
    return 0;
  if (!DT.dominates(I->getParent(), Latch))
    return 0;
  auto *AR = dyn_cast<SCEVAddRecExpr>(SE.getSCEV(unwrap(Ptr)));
  if (!AR || AR->getLoop() != L || !AR->isAffine())
    return 0;
  auto *Step = dyn_cast<SCEVConstant>(AR->getStepRecurrence(SE));
  const SCEV *Count = SE.getBackedgeTakenCount(L);
  if (!Step || isa<SCEVCouldNotCompute>(Count))
    return 0;
  APInt StepValue = Step->getAPInt();
  /* Gaps between the elements would make the mark much larger than what was written. */
  if (!StepValue.isSignedIntN(16) || StepValue.isZero() || StepValue.abs().ugt(std::max<uint64_t>(2 * Size, 64)))
    return 0;
  Type *IntTy = SE.getEffectiveSCEVType(unwrap(Ptr)->getType());
  if (SE.getTypeSizeInBits(Count->getType()) > SE.getTypeSizeInBits(IntTy))
    return 0;
  Count = SE.getNoopOrZeroExtend(Count, IntTy);
  const SCEV *Span = SE.getMulExpr(Count, SE.getConstant(IntTy, StepValue.abs().getZExtValue()));
  const SCEV *Start = AR->getStart();
  if (StepValue.isNegative())
    Start = SE.getAddExpr(Start, SE.getNegativeSCEV(Span));
  const SCEV *Len = SE.getAddExpr(Span, SE.getConstant(IntTy, Size));
#if LLVM_VERSION_MAJOR >= 22
  SCEVExpander Expander(SE, "vernal");
#else
  SCEVExpander Expander(SE, F.getParent()->getDataLayout(), "vernal");
#endif
  Instruction *At = &*Exit->getFirstInsertionPt();
  if (!Expander.isSafeToExpandAt(Start, At) || !Expander.isSafeToExpandAt(Len, At))
    return 0;
  if (Expander.isHighCostExpansion({Start, Len}, L, 32, &FAM->getResult<TargetIRAnalysis>(F), At))
    return 0;
  *First = wrap(Expander.expandCodeFor(Start, unwrap(Ptr)->getType(), At));
  *Length = wrap(Expander.expandCodeFor(Len, IntTy, At));
  return 1;
}

/* ---- rewriting ---- */

/* Splits the block before `At`; the part from `At` on is the new block. */
extern "C" LLVMBasicBlockRef vernal_shim_split_before(LLVMValueRef At) {
  auto *I = cast<Instruction>(unwrap(At));
  return wrap(I->getParent()->splitBasicBlock(I->getIterator(), "vernal.cont"));
}

/* Puts a block on all edges from the block that `Terminator` ends to `To`. Returns the new block's terminator. */
extern "C" LLVMValueRef vernal_shim_split_edge(LLVMValueRef Terminator, LLVMBasicBlockRef To) {
  auto *T = cast<Instruction>(unwrap(Terminator));
  BasicBlock *From = T->getParent(), *Dest = unwrap(To);
  if (isa<IndirectBrInst>(T) || isa<CallBrInst>(T) || Dest->isEHPad())
    return nullptr;
  BasicBlock *Mid = BasicBlock::Create(T->getContext(), "vernal.edge", From->getParent(), Dest);
#if LLVM_VERSION_MAJOR >= 23
  auto *Br = UncondBrInst::Create(Dest, Mid);
#else
  auto *Br = BranchInst::Create(Dest, Mid);
#endif
  Br->setDebugLoc(T->getDebugLoc());
  for (unsigned S = 0, E = T->getNumSuccessors(); S != E; ++S)
    if (T->getSuccessor(S) == Dest)
      T->setSuccessor(S, Mid);
  for (PHINode &Phi : Dest->phis()) {
    Value *V = Phi.getIncomingValueForBlock(From);
    for (int N = Phi.getBasicBlockIndex(From); N >= 0; N = Phi.getBasicBlockIndex(From))
      Phi.removeIncomingValue(unsigned(N), false);
    Phi.addIncoming(V, Mid);
  }
  return wrap(Br);
}

extern "C" LLVMValueRef vernal_shim_first_insertion(LLVMBasicBlockRef BB) {
  BasicBlock *B = unwrap(BB);
  auto It = B->getFirstInsertionPt();
  return It == B->end() ? nullptr : wrap(&*It);
}

extern "C" void vernal_shim_use(LLVMModuleRef M, LLVMValueRef G) { appendToUsed(*unwrap(M), {cast<GlobalValue>(unwrap(G))}); }

extern "C" void vernal_shim_unuse(LLVMModuleRef M, LLVMValueRef G) {
  auto *Gone = unwrap(G);
  removeFromUsedLists(*unwrap(M), [&](Constant *C) { return C->stripPointerCasts() == Gone; });
}

extern "C" void vernal_shim_warn(LLVMValueRef At, const char *Text, size_t Len) {
  static int Kind = getNextAvailablePluginDiagnosticKind();
  auto *I = cast<Instruction>(unwrap(At));
  I->getContext().diagnose(Warning(Kind, *I, StringRef(Text, Len)));
}

/* ---- debug information ---- */

/* Mirrored in shim.rs. */
struct VernalDie {
  uint32_t Tag, Encoding, Flags, Align;
  uint64_t Size, Offset, Value;
  const char *Name, *Identifier;
  size_t NameLen, IdentifierLen;
  void *Base, *Scope;
};
enum : uint32_t {
  Forward = 1, Virtual = 2, BitField = 4, Static = 8, Artificial = 16, EnumClass = 32, Vector = 64, UnsignedValue = 128
};

static void setString(const char *&To, size_t &Len, StringRef S) {
  To = S.data();
  Len = S.size();
}

extern "C" void vernal_shim_die(void *Node, VernalDie *Out) {
  *Out = {};
  auto *MD = static_cast<MDNode *>(Node);
  auto *N = dyn_cast<DINode>(MD);
  if (!N)
    return;
  Out->Tag = N->getTag();
  if (auto *T = dyn_cast<DIType>(N)) {
    setString(Out->Name, Out->NameLen, T->getName());
    Out->Size = T->getSizeInBits();
    Out->Offset = T->getOffsetInBits();
    Out->Align = T->getAlignInBits();
    Out->Scope = T->getScope();
    DINode::DIFlags F = T->getFlags();
    Out->Flags = (T->isForwardDecl() ? Forward : 0) | (F & DINode::FlagVirtual ? Virtual : 0) |
                 (T->isBitField() ? BitField : 0) | (T->isStaticMember() ? Static : 0) |
                 (T->isArtificial() ? Artificial : 0) | (F & DINode::FlagEnumClass ? EnumClass : 0) |
                 (T->isVector() ? Vector : 0);
  }
  if (auto *B = dyn_cast<DIBasicType>(N)) {
    Out->Encoding = B->getEncoding();
  } else if (auto *D = dyn_cast<DIDerivedType>(N)) {
    Out->Base = D->getBaseType();
  } else if (auto *C = dyn_cast<DICompositeType>(N)) {
    Out->Base = C->getBaseType();
    setString(Out->Identifier, Out->IdentifierLen, C->getIdentifier());
  } else if (auto *R = dyn_cast<DISubrange>(N)) {
    auto Count = R->getCount();
    auto *Fixed = dyn_cast_if_present<ConstantInt *>(Count);
    Out->Value = Fixed ? uint64_t(Fixed->getSExtValue()) : UINT64_MAX;
  } else if (auto *E = dyn_cast<DIEnumerator>(N)) {
    Out->Value = E->isUnsigned() ? E->getValue().getZExtValue() : uint64_t(E->getValue().getSExtValue());
    Out->Flags = E->isUnsigned() ? UnsignedValue : 0;
  } else if (auto *P = dyn_cast<DITemplateTypeParameter>(N)) {
    Out->Base = P->getType();
  } else if (auto *S = dyn_cast<DISubprogram>(N)) {
    setString(Out->Name, Out->NameLen, S->getName());
    Out->Scope = S->getScope();
  } else if (auto *S = dyn_cast<DINamespace>(N)) {
    setString(Out->Name, Out->NameLen, S->getName());
    Out->Scope = S->getScope();
  } else if (auto *S = dyn_cast<DIScope>(N); S && !isa<DIType>(N) && !isa<DIFile>(N)) {
    Out->Scope = S->getScope();
  }
}

/* Calls `Visit` with each element (0: members, subranges, types of a function), template argument (1) or text of a
 * btf_decl_tag attribute (2) of a node. Methods of classes are left out. */
extern "C" void vernal_shim_die_list(void *Node, int Which, void *Ctx,
                                     void (*Visit)(void *Ctx, void *Element, const char *Text, size_t Len)) {
  auto *MD = static_cast<MDNode *>(Node);
  auto *C = dyn_cast<DICompositeType>(MD);
  auto *D = dyn_cast<DIDerivedType>(MD);
  if (Which == 0) {
    if (auto *F = dyn_cast<DISubroutineType>(MD)) {
      for (DIType *T : F->getTypeArray())
        Visit(Ctx, T, nullptr, 0);
    } else if (C) {
      for (DINode *E : C->getElements())
        if (E && !isa<DISubprogram>(E))
          Visit(Ctx, E, nullptr, 0);
    }
  } else if (Which == 1 && C) {
    for (DITemplateParameter *P : C->getTemplateParams())
      Visit(Ctx, P, nullptr, 0);
  } else if (Which == 2 && (C || D)) {
    auto *Notes = C ? C->getAnnotations().get() : D->getAnnotations().get();
    if (!Notes)
      return;
    for (const MDOperand &Op : Notes->operands()) {
      auto *Pair = dyn_cast_or_null<MDTuple>(Op.get());
      if (!Pair || Pair->getNumOperands() != 2)
        continue;
      auto *Key = dyn_cast_or_null<MDString>(Pair->getOperand(0));
      auto *Text = dyn_cast_or_null<MDString>(Pair->getOperand(1));
      if (Key && Text && Key->getString() == "btf_decl_tag")
        Visit(Ctx, nullptr, Text->getString().data(), Text->getString().size());
    }
  }
}

/* The type that clang attached to an allocation, or null. */
extern "C" void *vernal_shim_allocated_type(LLVMValueRef Call) {
  return dyn_cast_or_null<DIType>(cast<Instruction>(unwrap(Call))->getMetadata("heapallocsite"));
}

/* What the driver wrote into the compile unit's flags: what of the debug information the user did not ask for. */
extern "C" void vernal_shim_strip(LLVMModuleRef M) {
  bool All = false, Types = false;
  for (DICompileUnit *CU : unwrap(M)->debug_compile_units()) {
    All |= CU->getFlags() == "vernal-strip";
    Types |= CU->getFlags() == "vernal-strip-types";
  }
  if (All)
    StripDebugInfo(*unwrap(M));
  else if (Types)
    stripNonLineTableDebugInfo(*unwrap(M));
}

extern "C" void vernal_shim_demangle(const char *Symbol, size_t Len, void *Ctx,
                                     void (*Visit)(void *Ctx, void *, const char *Text, size_t Len)) {
  std::string Text = demangle(std::string(Symbol, Len));
  Visit(Ctx, nullptr, Text.data(), Text.size());
}

/* Runs `F` before main, ahead of the program's own constructors; the linker keeps one for all objects that have it. */
extern "C" void vernal_shim_constructor(LLVMModuleRef M, LLVMValueRef F, int Priority) {
  auto *Fn = unwrap<Function>(F);
  appendToGlobalCtors(*unwrap(M), Fn, Priority, Fn->getComdat() ? Fn : nullptr);
}
