; RUN: passes=vernal,vernal
; A function is instrumented once, however often the pass runs.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @f(
; CHECK-COUNT-1: lshr
; CHECK-NOT: lshr
; CHECK: ret void
define void @f(ptr %p) {
  store i64 1, ptr %p
  ret void
}
; CHECK: attributes {{.*}}"vernal-instrumented"
