; RUN:
; Library functions mark what they write, by argument, result or terminator; functions with a body do not.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define i64 @reads(
; CHECK: %n = call i64 @read(
; CHECK: lshr
; CHECK: %[[LEN:.*]] = select i1 {{.*}}, i64 %n, i64 0
; CHECK: {{.*}}@__vernal_thunk_range, i64 %[[LEN]])
define i64 @reads(ptr %p) {
  %n = call i64 @read(i32 0, ptr %p, i64 100)
  ret i64 %n
}
; CHECK-LABEL: define void @copies(
; CHECK: call ptr @strcpy
; CHECK: lshr
; CHECK: {{.*}}@__vernal_thunk_cstr)
define void @copies(ptr %p, ptr %q) {
  %r = call ptr @strcpy(ptr %p, ptr %q)
  ret void
}
; CHECK-LABEL: define void @checked(
; CHECK: {{.*}}@__vernal_thunk_range, i64 %n)
define void @checked(ptr %p, ptr %q, i64 %n) {
  %r = call ptr @__memcpy_chk(ptr %p, ptr %q, i64 %n, i64 -1)
  ret void
}
; CHECK-LABEL: define void @scans(
; CHECK: call i32 (ptr, ptr, ...) @sscanf
; CHECK: lshr
; CHECK: ret void
; CHECK-DAG: {{.*}}@__vernal_thunk_cstr)
; CHECK-DAG: {{.*}}@__vernal_thunk_span16)
define void @scans(ptr %p, ptr %s, ptr %f) {
  %r = call i32 (ptr, ptr, ...) @sscanf(ptr %s, ptr %f, ptr %p)
  ret void
}
; CHECK-LABEL: define void @local(
; CHECK-NOT: lshr
; CHECK: ret void
define void @local() {
  %a = alloca [8 x i8]
  %r = call i64 @read(i32 0, ptr %a, i64 8)
  ret void
}
declare i64 @read(i32, ptr, i64)
declare ptr @strcpy(ptr, ptr)
declare ptr @__memcpy_chk(ptr, ptr, i64, i64)
declare i32 @sscanf(ptr, ptr, ...)
