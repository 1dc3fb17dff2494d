; RUN:
; Calls that cannot commit or publish do not part a stretch.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define i64 @call(
; CHECK: store i64 1
; CHECK-NOT: lshr
; CHECK: call i64 @strlen
; CHECK: call double @llvm.sqrt
; CHECK: store i64 2
; CHECK-COUNT-1: lshr
; CHECK-NOT: lshr
; CHECK: ret i64
define i64 @call(ptr %p, ptr %s, double %x) {
  store i64 1, ptr %p
  %n = call i64 @strlen(ptr %s)
  %y = call double @llvm.sqrt.f64(double %x)
  store i64 2, ptr %p
  ret i64 %n
}
declare i64 @strlen(ptr)
declare double @llvm.sqrt.f64(double)
