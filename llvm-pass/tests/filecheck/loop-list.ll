; RUN:
; A pointer that advances is marked before it is overwritten.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @walk(
; CHECK: store i64 1, ptr %p
; CHECK: ptrtoint ptr %p
; CHECK: ret void
define void @walk(ptr %head) {
entry:
  br label %loop
loop:
  %p = phi ptr [ %head, %entry ], [ %next, %loop ]
  store i64 1, ptr %p, align 8
  %f = getelementptr inbounds i8, ptr %p, i64 8
  %next = load ptr, ptr %f
  %c = icmp eq ptr %next, null
  br i1 %c, label %done, label %loop
done:
  ret void
}
