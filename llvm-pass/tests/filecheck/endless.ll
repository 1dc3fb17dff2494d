; RUN:
; A store before a loop without end is marked before it.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @f(
; CHECK: store i64 1
; CHECK: lshr
; CHECK: loop:
; CHECK-NOT: lshr
define void @f(ptr %p) {
  store i64 1, ptr %p
  br label %loop
loop:
  br label %loop
}
