; RUN:
; Functions that ask for it, and naked ones, are left alone and counted.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

@.str = private constant [12 x i8] c"vernal_skip\00"
@llvm.global.annotations = appending global [1 x { ptr, ptr, ptr, i32, ptr }] [{ ptr, ptr, ptr, i32, ptr } { ptr @noted, ptr @.str, ptr @.str, i32 1, ptr null }], section "llvm.metadata"
; CHECK-LABEL: define void @noted(
; CHECK-NOT: lshr
; CHECK: ret void
define void @noted(ptr %p) {
  store i64 1, ptr %p
  ret void
}
; CHECK-LABEL: define void @attribute(
; CHECK-NOT: lshr
; CHECK: ret void
define void @attribute(ptr %p) "vernal-skip" {
  store i64 1, ptr %p
  ret void
}
; CHECK-LABEL: define void @normal(
; CHECK: lshr
define void @normal(ptr %p) {
  store i64 1, ptr %p
  ret void
}
; CHECK: "function":2
