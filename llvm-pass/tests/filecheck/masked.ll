; RUN:
; Compressed, scattered and vector-predicated stores.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @compress(
; CHECK: call void @llvm.masked.compressstore
; CHECK: {{.*}}@__vernal_thunk_span32)
define void @compress(ptr %p, <8 x i32> %v, <8 x i1> %m) {
  call void @llvm.masked.compressstore.v8i32(<8 x i32> %v, ptr %p, <8 x i1> %m)
  ret void
}
; CHECK-LABEL: define void @maskstore(
; CHECK: {{.*}}@__vernal_thunk_span16)
define void @maskstore(ptr %p, <4 x i32> %m, <4 x float> %v) {
  call void @llvm.x86.avx.maskstore.ps(ptr %p, <4 x i32> %m, <4 x float> %v)
  ret void
}
; CHECK-LABEL: define void @dir(
; CHECK: {{.*}}@__vernal_thunk_span64)
define void @dir(ptr %p, ptr %q) {
  call void @llvm.x86.movdir64b(ptr %p, ptr %q)
  ret void
}
declare void @llvm.masked.compressstore.v8i32(<8 x i32>, ptr, <8 x i1>)
declare void @llvm.x86.avx.maskstore.ps(ptr, <4 x i32>, <4 x float>)
declare void @llvm.x86.movdir64b(ptr, ptr)
