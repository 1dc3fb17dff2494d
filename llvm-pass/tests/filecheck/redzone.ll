; RUN:
; A function with marks has no red zone; what the hooks may destroy is a clobber by target feature.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK-LABEL: define void @sse(
; CHECK: ~{xmm15},~{dirflag}
define void @sse(ptr %p) {
  store i64 1, ptr %p
  ret void
}
; CHECK-LABEL: define void @avx512(
; CHECK: ~{zmm31},~{k0},{{.*}}~{k7},~{dirflag}
define void @avx512(ptr %p) "target-features"="+avx,+avx2,+avx512f" {
  store i64 1, ptr %p
  ret void
}
; CHECK: attributes {{.*}}noredzone
