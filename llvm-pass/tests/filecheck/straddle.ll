; RUN:
; A store that may cross a line marks a span; a naturally aligned one its line.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @packed(
; CHECK: {{.*}}@__vernal_thunk_span8)
define void @packed(ptr %p) {
  store i64 1, ptr %p, align 1
  ret void
}
; CHECK-LABEL: define void @aligned(
; CHECK: {{.*}}@__vernal_thunk_line)
define void @aligned(ptr %p) {
  store i64 1, ptr %p, align 8
  ret void
}
; CHECK-LABEL: define void @wide(
; CHECK: {{.*}}@__vernal_thunk_range, i64 128)
define void @wide(ptr %p) {
  store <16 x i64> zeroinitializer, ptr %p, align 128
  ret void
}
; CHECK-LABEL: define void @vector(
; CHECK: {{.*}}@__vernal_thunk_line)
define void @vector(ptr %p) {
  store <4 x i64> zeroinitializer, ptr %p, align 32
  ret void
}
