; RUN:
; A phi or select of untracked objects only is skipped; one tracked input is enough to keep it.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

@g = global i64 0
; CHECK-LABEL: define void @skipped(
; CHECK-NOT: lshr
; CHECK: ret void
define void @skipped(i1 %c) {
  %a = alloca i64
  %p = select i1 %c, ptr %a, ptr @g
  store i64 1, ptr %p
  ret void
}
; CHECK-LABEL: define void @kept(
; CHECK: lshr
; CHECK: ret void
define void @kept(i1 %c, ptr %q) {
  %p = select i1 %c, ptr %q, ptr @g
  store i64 1, ptr %p
  ret void
}
; CHECK: "mixed":1
