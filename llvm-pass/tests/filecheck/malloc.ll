; RUN:
; RUN: prefix=TRACK options=far=0,track-malloc
; Fresh memory of the C library is skipped, unless asked; that of an allocator the program defines or of an unknown one is not.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @fresh(
; CHECK-NOT: lshr
; CHECK: ret void
; TRACK-LABEL: define void @fresh(
; TRACK: lshr
; TRACK: ret void
define void @fresh() {
  %p = call ptr @malloc(i64 8)
  store i64 1, ptr %p
  ret void
}
; CHECK-LABEL: define void @own(
; CHECK: lshr
; CHECK: ret void
define void @own() {
  %p = call noalias ptr @my_alloc(i64 8)
  store i64 1, ptr %p
  ret void
}
; CHECK-LABEL: define void @new(
; CHECK: lshr
; CHECK: ret void
define void @new() {
  %p = call noalias ptr @_Znwm(i64 8)
  store i64 1, ptr %p
  ret void
}
declare ptr @malloc(i64)
declare noalias ptr @my_alloc(i64)
declare noalias ptr @_Znwm(i64)
