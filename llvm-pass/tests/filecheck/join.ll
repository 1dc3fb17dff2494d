; RUN:
; Stores on both arms are marked once, where they join; on one arm, there.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @both(
; CHECK: join:
; CHECK: lshr
; CHECK-NOT: lshr
; CHECK: ret void
define void @both(ptr %p, i1 %c) {
  br i1 %c, label %a, label %b
a:
  store i64 1, ptr %p
  br label %join
b:
  store i64 2, ptr %p
  br label %join
join:
  ret void
}
; CHECK-LABEL: define void @one(
; CHECK: a:
; CHECK: store i64 1
; CHECK: lshr
; CHECK: join:
; CHECK-NOT: lshr
; CHECK: ret void
define void @one(ptr %p, i1 %c) {
  br i1 %c, label %a, label %join
a:
  store i64 1, ptr %p
  br label %join
join:
  ret void
}
; CHECK-LABEL: define void @later(
; CHECK: a:
; CHECK-NOT: lshr
; CHECK: join:
; CHECK: store i64 2
; CHECK: lshr
; CHECK: ret void
define void @later(ptr %p, i1 %c) {
  br i1 %c, label %a, label %join
a:
  store i64 1, ptr %p
  br label %join
join:
  store i64 2, ptr %p
  ret void
}
