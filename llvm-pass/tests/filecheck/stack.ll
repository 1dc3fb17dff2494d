; RUN:
; Local variables, by-value arguments and globals are skipped; a pointer loaded from one is not.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

@g = global i64 0
@t = thread_local global i64 0
@gp = global ptr null
; CHECK-LABEL: define void @skipped(
; CHECK-NOT: lshr
; CHECK: ret void
define void @skipped(ptr byval(i64) %v) {
  %a = alloca [4 x i64]
  %e = getelementptr inbounds [4 x i64], ptr %a, i64 0, i64 2
  store i64 1, ptr %e
  store i64 2, ptr %v
  store i64 3, ptr @g
  %tp = call ptr @llvm.threadlocal.address.p0(ptr @t)
  store i64 4, ptr %tp
  ret void
}
; CHECK-LABEL: define void @kept(
; CHECK: lshr
; CHECK: ret void
define void @kept() {
  %p = load ptr, ptr @gp
  store i64 1, ptr %p
  ret void
}
; CHECK: STATS: {{.*}}"stores":5,"instrumented":1,{{.*}}"stack":1,"byval":1,"global":2
declare ptr @llvm.threadlocal.address.p0(ptr)
