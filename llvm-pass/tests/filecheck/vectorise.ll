; RUN: passes=default<O2>
; A loop that fills an array still becomes vector code.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @fill(
; CHECK: store <{{[0-9]+}} x i64>
; CHECK: @__vernal_thunk_range
define void @fill(ptr noalias %p, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
  %q = getelementptr inbounds i64, ptr %p, i64 %i
  store i64 %i, ptr %q, align 8
  %j = add nuw nsw i64 %i, 1
  %c = icmp ult i64 %j, %n
  br i1 %c, label %loop, label %done
done:
  ret void
}
