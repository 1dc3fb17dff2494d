; RUN:
; A conditional store through an invariant pointer is marked after the loop.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @max(
; CHECK: loop:
; CHECK-NOT: lshr
; CHECK: done:
; CHECK: lshr
; CHECK: ret void
define void @max(ptr %p, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %latch ]
  %b = and i64 %i, 5
  %odd = icmp eq i64 %b, 5
  br i1 %odd, label %write, label %latch
write:
  store i64 %i, ptr %p, align 8
  br label %latch
latch:
  %j = add nuw nsw i64 %i, 1
  %c = icmp ult i64 %j, %n
  br i1 %c, label %loop, label %done
done:
  ret void
}
