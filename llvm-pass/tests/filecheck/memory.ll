; RUN:
; memcpy, memmove and memset mark what they wrote; a constant length that fits a line by a span, length 0 not at all.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @var(
; CHECK: call void @llvm.memcpy
; CHECK: lshr
; CHECK: {{.*}}@__vernal_thunk_range, i64 %n)
define void @var(ptr %d, ptr %s, i64 %n) {
  call void @llvm.memcpy.p0.p0.i64(ptr %d, ptr %s, i64 %n, i1 false)
  ret void
}
; CHECK-LABEL: define void @fixed(
; CHECK: {{.*}}@__vernal_thunk_span40)
define void @fixed(ptr %d, ptr %s) {
  call void @llvm.memmove.p0.p0.i64(ptr %d, ptr %s, i64 40, i1 false)
  ret void
}
; CHECK-LABEL: define void @none(
; CHECK-NOT: lshr
; CHECK: ret void
define void @none(ptr %d) {
  call void @llvm.memset.p0.i64(ptr %d, i8 0, i64 0, i1 false)
  ret void
}
; CHECK-LABEL: define void @inline(
; CHECK: {{.*}}@__vernal_thunk_range, i64 100)
define void @inline(ptr %d) {
  call void @llvm.memset.inline.p0.i64(ptr %d, i8 0, i64 100, i1 false)
  ret void
}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memset.inline.p0.i64(ptr, i8, i64, i1)
