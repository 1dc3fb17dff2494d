; RUN:
; The mark comes after its store and before a call that may commit; stretches do not merge over it.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @call(
; CHECK: store i64 1
; CHECK: lshr
; CHECK: call void @commit()
; CHECK: store i64 2
; CHECK: lshr
; CHECK: ret void
define void @call(ptr %p) {
  store i64 1, ptr %p
  call void @commit()
  store i64 2, ptr %p
  ret void
}
; CHECK-LABEL: define void @indirect(
; CHECK: store i64 1
; CHECK: lshr
; CHECK: call void %f()
define void @indirect(ptr %p, ptr %f) {
  store i64 1, ptr %p
  call void %f()
  ret void
}
declare void @commit()
