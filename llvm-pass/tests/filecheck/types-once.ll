; RUN: passes=vernal-types,vernal-types
; RUN: passes=vernal-types prefix=LINES
; A second visit finds nothing to do. Without a note from the driver debug information stays; it goes, but for lines, when the
; user asked for lines only.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-COUNT-1: section "vernal_types"
; CHECK-NOT: section "vernal_types"
; CHECK-COUNT-1: call void @__vernal_register_types
; CHECK-NOT: call void @__vernal_register_types
; LINES: define ptr @one() !dbg
declare ptr @__vn_new(ptr, i64, ptr)
define ptr @one() !dbg !5 {
  %p = call ptr @__vn_new(ptr null, i64 8, ptr null), !dbg !12, !heapallocsite !7
  ret ptr %p
}
; LINES: emissionKind: LineTablesOnly
; LINES-NOT: !DICompositeType
; LINES: !DILocation(line: 1
!llvm.dbg.cu = !{!0}
!llvm.module.flags = !{!2}
!0 = distinct !DICompileUnit(language: DW_LANG_C11, file: !1, flags: "vernal-strip-types", isOptimized: false, runtimeVersion: 0, emissionKind: FullDebug)
!1 = !DIFile(filename: "a.c", directory: "/")
!2 = !{i32 2, !"Debug Info Version", i32 3}
!3 = !DISubroutineType(types: !4)
!4 = !{null}
!5 = distinct !DISubprogram(name: "one", scope: !1, file: !1, line: 1, type: !3, unit: !0, spFlags: DISPFlagDefinition)
!7 = !DICompositeType(tag: DW_TAG_structure_type, name: "node", file: !1, size: 64, elements: !8)
!8 = !{!9}
!9 = !DIDerivedType(tag: DW_TAG_member, name: "next", scope: !7, baseType: !10, size: 64)
!10 = !DIDerivedType(tag: DW_TAG_pointer_type, baseType: !7, size: 64)
!12 = !DILocation(line: 1, scope: !5)
