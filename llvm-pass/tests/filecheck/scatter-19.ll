; RUN:
; VERSIONS: 19
; A scatter checks every lane.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @scatter(
; CHECK: call void @llvm.masked.scatter
; CHECK-COUNT-4: lshr
; CHECK-NOT: lshr
; CHECK: ret void
define void @scatter(<4 x ptr> %p, <4 x i64> %v, <4 x i1> %m) {
  call void @llvm.masked.scatter.v4i64.v4p0(<4 x i64> %v, <4 x ptr> %p, i32 8, <4 x i1> %m)
  ret void
}
declare void @llvm.masked.scatter.v4i64.v4p0(<4 x i64>, <4 x ptr>, i32, <4 x i1>)
