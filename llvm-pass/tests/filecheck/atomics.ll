; RUN:
; Atomics are marked at once, after what came before them; fences part stretches.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @release(
; CHECK: store i64 1
; CHECK: lshr
; CHECK: store atomic i64 2
; CHECK: lshr
; CHECK: ret void
define void @release(ptr %p, ptr %q) {
  store i64 1, ptr %p
  store atomic i64 2, ptr %q release, align 8
  ret void
}
; CHECK-LABEL: define void @fenced(
; CHECK: store i64 1
; CHECK: lshr
; CHECK: fence release
define void @fenced(ptr %p) {
  store i64 1, ptr %p
  fence release
  ret void
}
; CHECK-LABEL: define i64 @rmw(
; CHECK: atomicrmw
; CHECK: lshr
; CHECK: ret i64
define i64 @rmw(ptr %p) {
  %v = atomicrmw add ptr %p, i64 1 monotonic
  ret i64 %v
}
; CHECK-LABEL: define i1 @cas(
; CHECK: cmpxchg
; CHECK: lshr
; CHECK: {{.*}}@__vernal_thunk_line)
define i1 @cas(ptr %p) {
  %v = cmpxchg ptr %p, i128 0, i128 1 seq_cst seq_cst, align 16
  %b = extractvalue { i128, i1 } %v, 1
  ret i1 %b
}
; CHECK-LABEL: define i64 @acquire(
; CHECK: store i64 1
; CHECK-NOT: lshr
; CHECK: load atomic
; CHECK: lshr
define i64 @acquire(ptr %p, ptr %q) {
  store i64 1, ptr %p
  %v = load atomic i64, ptr %q acquire, align 8
  ret i64 %v
}
