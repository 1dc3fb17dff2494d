; RUN:
; RUN: prefix=QUIET options=no-warn
; Outputs of inline assembly are marked; a memory clobber parts stretches, and given a pointer it is warned about.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @output(
; CHECK: call void asm "movl
; CHECK: lshr
; CHECK: {{.*}}@__vernal_thunk_span4)
define void @output(ptr %p) {
  call void asm "movl $$5, $0", "=*m,~{dirflag},~{fpsr},~{flags}"(ptr elementtype(i32) %p)
  ret void
}
; CHECK-LABEL: define void @clobber(
; CHECK: store i64 1
; CHECK: lshr
; CHECK: call void asm sideeffect "", "~{memory}"
define void @clobber(ptr %p) {
  store i64 1, ptr %p
  call void asm sideeffect "", "~{memory}"()
  ret void
}
define void @hidden(ptr %p) {
  call void asm sideeffect "movl $$5, ($0)", "r,~{memory}"(ptr %p)
  ret void
}
; CHECK: WARNED: {{.*}}in function 'hidden': inline assembly that clobbers memory is given a pointer
; CHECK-NOT: WARNED
; QUIET-NOT: WARNED
