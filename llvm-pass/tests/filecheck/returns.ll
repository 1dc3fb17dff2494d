; RUN:
; What an internal function returns is untracked if all its results are.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

@g = global i64 0
@h = global ptr null
define internal ptr @local() noinline {
  ret ptr @g
}
define internal ptr @loaded() noinline {
  %p = load ptr, ptr @h
  ret ptr %p
}
; CHECK-LABEL: define void @a(
; CHECK-NOT: lshr
; CHECK: ret void
define void @a() {
  %p = call ptr @local()
  store i64 1, ptr %p
  ret void
}
; CHECK-LABEL: define void @b(
; CHECK: lshr
; CHECK: ret void
define void @b() {
  %p = call ptr @loaded()
  store i64 1, ptr %p
  ret void
}
; CHECK: "returned":1
