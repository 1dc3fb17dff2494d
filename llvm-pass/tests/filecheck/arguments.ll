; RUN:
; An internal function that is only given untracked memory needs no marks; one other caller is enough to need them.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

@g = global i64 0
; CHECK-LABEL: define internal void @always_local(
; CHECK-NOT: lshr
; CHECK: ret void
define internal void @always_local(ptr %p) noinline {
  store i64 1, ptr %p
  ret void
}
; CHECK-LABEL: define internal void @sometimes(
; CHECK: lshr
; CHECK: ret void
define internal void @sometimes(ptr %p) noinline {
  store i64 1, ptr %p
  ret void
}
; CHECK-LABEL: define internal void @escapes(
; CHECK: lshr
; CHECK: ret void
define internal void @escapes(ptr %p) noinline {
  store i64 1, ptr %p
  ret void
}
define void @caller(ptr %q) {
  %a = alloca i64
  call void @always_local(ptr %a)
  call void @always_local(ptr @g)
  call void @sometimes(ptr %a)
  call void @sometimes(ptr %q)
  call void @escapes(ptr %a)
  call void @take(ptr @escapes)
  ret void
}
; CHECK: "argument":1
declare void @take(ptr)
