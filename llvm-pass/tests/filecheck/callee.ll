; RUN:
; A function of the module that cannot commit is no barrier; one that can, or that may be replaced, is.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @caller(
; CHECK: store i64 1
; CHECK-NOT: lshr
; CHECK: call void @pure
; CHECK: store i64 2
; CHECK: lshr
; CHECK: call void @commits
; CHECK: store i64 3
; CHECK: lshr
; CHECK: call void @replaceable
define void @caller(ptr %p, ptr %q) {
  store i64 1, ptr %p
  call void @pure(ptr %q)
  store i64 2, ptr %p
  call void @commits()
  store i64 3, ptr %p
  call void @replaceable()
  ret void
}
define internal void @pure(ptr %q) {
  store i64 9, ptr %q
  ret void
}
define internal void @commits() {
  call void @middle()
  ret void
}
define internal void @middle() {
  call void @commit()
  ret void
}
define weak void @replaceable() {
  ret void
}
declare void @commit()
