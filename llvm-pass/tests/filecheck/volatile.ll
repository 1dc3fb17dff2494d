; RUN:
; Volatile accesses part stretches; a volatile store is marked at once.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @v(
; CHECK: store i64 1, ptr %p
; CHECK: lshr
; CHECK: store volatile i64 2, ptr %p
; CHECK: lshr
; CHECK: store i64 3, ptr %p
; CHECK: lshr
; CHECK: load volatile
; CHECK-NOT: lshr
; CHECK: ret void
define void @v(ptr %p) {
  store i64 1, ptr %p
  store volatile i64 2, ptr %p
  store i64 3, ptr %p
  %v = load volatile i64, ptr %p
  ret void
}
