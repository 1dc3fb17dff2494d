; RUN:
; A store is followed by a range check and, behind it, a mark; a load needs neither.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @stores(
; CHECK: store i64 1, ptr %p
; CHECK-NEXT: %[[I:.*]] = ptrtoint ptr %p to i64
; CHECK-NEXT: %[[T:.*]] = lshr i64 %[[I]], 40
; CHECK-NEXT: %[[C:.*]] = icmp eq i64 %[[T]], 88
; CHECK-NEXT: br i1 %[[C]], label %vernal.cold, label %vernal.cont, !prof
; CHECK: ret void
; CHECK: vernal.cold:
; CHECK-NEXT: call ptr asm sideeffect "callq ${2:P}", "={r11},0,i,{{.*}}(ptr {{.*}}, ptr @__vernal_thunk_line)
; CHECK-NEXT: br label %vernal.cont
define void @stores(ptr %p) {
  store i64 1, ptr %p, align 8
  ret void
}
; CHECK-LABEL: define i64 @loads(
; CHECK-NOT: lshr
; CHECK: ret i64
define i64 @loads(ptr %p) {
  %v = load i64, ptr %p, align 8
  ret i64 %v
}
; CHECK: declare preserve_mostcc void @__vernal_mark_line(ptr) #[[HOOK:[0-9]+]]
; CHECK: attributes #[[HOOK]] = { cold {{.*}}nonlazybind
