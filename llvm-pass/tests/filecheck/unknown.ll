; RUN:
; An intrinsic that writes through a pointer in a way nobody has told the pass is warned about.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

define void @f(ptr %p) {
  store i64 1, ptr %p
  call void @llvm.x86.tilestored64(i8 1, ptr %p, i64 64)
  ret void
}
; CHECK: WARNED: {{.*}}in function 'f': what the intrinsic llvm.x86.tilestored64 writes is not known
declare void @llvm.x86.tilestored64(i8, ptr, i64)
