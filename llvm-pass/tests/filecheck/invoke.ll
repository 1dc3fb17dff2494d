; RUN:
; What a call that may throw writes is marked where it returns to; pending marks come before it.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @f(
; CHECK: store i64 1, ptr %q
; CHECK: lshr
; CHECK: invoke i64 @read(
; CHECK: ok:
; CHECK: lshr
; CHECK: ret void
define void @f(ptr %p, ptr %q) personality ptr @__gxx_personality_v0 {
  store i64 1, ptr %q
  %n = invoke i64 @read(i32 0, ptr %p, i64 100) to label %ok unwind label %bad
ok:
  ret void
bad:
  %l = landingpad { ptr, i32 } cleanup
  resume { ptr, i32 } %l
}
declare i64 @read(i32, ptr, i64)
declare i32 @__gxx_personality_v0(...)
