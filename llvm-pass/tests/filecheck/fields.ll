; RUN:
; Stores to fields of one object share a check; near fields one mark, far fields one each.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @near(
; CHECK-COUNT-1: lshr
; CHECK-NOT: lshr
; CHECK: vernal.cold:
; CHECK-NEXT: call ptr asm sideeffect "callq ${2:P}", {{.*}}, ptr @__vernal_thunk_span24)
; CHECK-NEXT: br
define void @near(ptr %p) {
  store i64 1, ptr %p
  %q = getelementptr inbounds i8, ptr %p, i64 16
  store i64 2, ptr %q
  ret void
}
; CHECK-LABEL: define void @far(
; CHECK-COUNT-1: lshr
; CHECK-NOT: lshr
; CHECK: vernal.cold:
; CHECK-NEXT: {{.*}}@__vernal_thunk_line)
; CHECK: {{.*}}@__vernal_thunk_line)
; CHECK-NEXT: br
define void @far(ptr %p) {
  store i64 1, ptr %p
  %q = getelementptr inbounds i8, ptr %p, i64 4096
  store i64 2, ptr %q
  ret void
}
; CHECK-LABEL: define void @two(
; CHECK-COUNT-2: lshr
; CHECK-NOT: lshr
; CHECK: ret void
define void @two(ptr %p, ptr %q) {
  store i64 1, ptr %p
  store i64 2, ptr %q
  ret void
}
