; RUN: options=
; Cold code calls the thunk at once; a function for size too.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @hot(
; CHECK: br i1 %c, label %rare
; CHECK: rare:
; CHECK-NEXT: store i64 1
; CHECK-NEXT: call ptr asm sideeffect "callq ${2:P}", "={r11},0,i,{{.*}}(ptr {{.*}}, ptr @__vernal_thunk_line)
; CHECK-NEXT: br label %done
; CHECK: done:
define void @hot(ptr %p, i1 %c) {
  br i1 %c, label %rare, label %done, !prof !0
rare:
  store i64 1, ptr %p
  br label %done
done:
  ret void
}
; CHECK-LABEL: define void @small(
; CHECK-NOT: lshr
; CHECK: call ptr asm sideeffect "callq ${2:P}", "={r11},0,i,{{.*}}(ptr {{.*}}, ptr @__vernal_thunk_line)
define void @small(ptr %p) minsize {
  store i64 1, ptr %p
  ret void
}
!0 = !{!"branch_weights", i32 1, i32 2000}
