; RUN: passes=vernal-types
; An allocation whose type argument is null gets the type that clang attached to it; one constructor registers all.
; Debug information that only this needed is gone afterwards.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK: $[[TYPE:__vernal_type_[0-9a-f]+]] = comdat any
; CHECK: @__vernal_blob_{{.*}} = linkonce_odr hidden constant {{.*}} c"VTYP\01\00{{.*}}node{{.*}}", comdat, align 8
; CHECK: @[[TYPE]] = linkonce_odr hidden constant { ptr, i32, i32, ptr } { ptr @__vernal_blob_{{.*}}, i32 {{[0-9]+}}, i32 0, ptr null }, comdat
; CHECK: @__vernal_entry_{{.*}} = linkonce_odr hidden global ptr @[[TYPE]], section "vernal_types", comdat
; CHECK: @llvm.used = {{.*}}@__vernal_entry_
; CHECK: @__start_vernal_types = extern_weak hidden
; CHECK: @__stop_vernal_types = extern_weak hidden
; CHECK: @llvm.global_ctors = {{.*}} { i32 100, ptr @__vernal_types_init, ptr @__vernal_types_init }

declare ptr @__vn_new(ptr, i64, ptr)
declare ptr @__vn_root(ptr, i64, ptr)

; CHECK-LABEL: define ptr @one(
; CHECK-NEXT: call ptr @__vn_new(ptr null, i64 8, ptr @[[TYPE]])
; CHECK-NOT: !dbg
define ptr @one() !dbg !5 {
  %p = call ptr @__vn_new(ptr null, i64 8, ptr null), !dbg !12, !heapallocsite !7
  ret ptr %p
}

; Several of them, and the root object.
; CHECK-LABEL: define ptr @some(
; CHECK-NEXT: call ptr @__vn_new(ptr null, i64 %n, ptr @[[TYPE]])
; CHECK-NEXT: call ptr @__vn_root(ptr null, i64 8, ptr @[[TYPE]])
define ptr @some(i64 %n) {
  %p = call ptr @__vn_new(ptr null, i64 %n, ptr null), !heapallocsite !7
  %r = call ptr @__vn_root(ptr null, i64 8, ptr null), !heapallocsite !7
  ret ptr %p
}

; What the program passes itself stays, and so does the null of a call without type (clang writes an empty node for void).
; CHECK-LABEL: define void @others(
; CHECK-NEXT: call ptr @__vn_new(ptr null, i64 8, ptr %mine)
; CHECK-NEXT: call ptr @__vn_new(ptr null, i64 8, ptr null)
; CHECK-NEXT: call ptr @__vn_new(ptr null, i64 8, ptr null)
; CHECK-NEXT: call ptr @__vn_new(ptr null, i64 20, ptr null)
define void @others(ptr %mine) {
  %a = call ptr @__vn_new(ptr null, i64 8, ptr %mine), !heapallocsite !7
  %b = call ptr @__vn_new(ptr null, i64 8, ptr null)
  %c = call ptr @__vn_new(ptr null, i64 8, ptr null), !heapallocsite !11
  %d = call ptr @__vn_new(ptr null, i64 20, ptr null), !heapallocsite !7
  ret void
}

; CHECK: define linkonce_odr hidden void @__vernal_types_init() {{.*}}comdat
; CHECK: call void @__vernal_register_types(ptr @__start_vernal_types, ptr @__stop_vernal_types)
; CHECK-NOT: !DI
; CHECK-DAG: WARNED: {{.*}}in function 'others': allocation in a pool without a type
; CHECK-DAG: WARNED: {{.*}}in function 'others': allocates 20 bytes for objects of 8 bytes, so it gets no type

!llvm.dbg.cu = !{!0}
!llvm.module.flags = !{!2}
!0 = distinct !DICompileUnit(language: DW_LANG_C11, file: !1, flags: "vernal-strip", isOptimized: false, runtimeVersion: 0, emissionKind: FullDebug)
!1 = !DIFile(filename: "a.c", directory: "/")
!2 = !{i32 2, !"Debug Info Version", i32 3}
!3 = !DISubroutineType(types: !4)
!4 = !{null}
!5 = distinct !DISubprogram(name: "one", scope: !1, file: !1, line: 1, type: !3, unit: !0, spFlags: DISPFlagDefinition)
!7 = !DICompositeType(tag: DW_TAG_structure_type, name: "node", file: !1, size: 64, elements: !8)
!8 = !{!9}
!9 = !DIDerivedType(tag: DW_TAG_member, name: "next", scope: !7, baseType: !10, size: 64)
!10 = !DIDerivedType(tag: DW_TAG_pointer_type, baseType: !7, size: 64)
!11 = !{}
!12 = !DILocation(line: 1, scope: !5)
