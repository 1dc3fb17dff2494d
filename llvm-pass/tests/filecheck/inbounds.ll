; RUN:
; Arithmetic that may leave the object is checked by the address itself.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @wild(
; CHECK: %q = getelementptr i8
; CHECK: ptrtoint ptr %q
define void @wild(ptr %p, i64 %n) {
  %q = getelementptr i8, ptr %p, i64 %n
  store i64 1, ptr %q
  ret void
}
; CHECK-LABEL: define void @tame(
; CHECK: ptrtoint ptr %p
define void @tame(ptr %p, i64 %n) {
  %q = getelementptr inbounds i8, ptr %p, i64 %n
  store i64 1, ptr %q
  ret void
}
