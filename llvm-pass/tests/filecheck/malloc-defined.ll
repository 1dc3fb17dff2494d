; RUN:
; A malloc that the program defines may return tracked memory.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

@heap = global ptr null
define ptr @malloc(i64 %n) {
  %p = load ptr, ptr @heap
  ret ptr %p
}
; CHECK-LABEL: define void @fresh(
; CHECK: lshr
; CHECK: ret void
define void @fresh() {
  %p = call ptr @malloc(i64 8)
  store i64 1, ptr %p
  ret void
}
