; RUN:
; RUN: prefix=PRE passes=vernal-prelink
; RUN: prefix=BOTH passes=vernal-prelink,vernal
; An instrumented module refers to the ABI version; one that waits for its link says so, and the link takes it back.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

; CHECK: @__vernal_abi_note = linkonce_odr hidden constant ptr @__vernal_abi_b1, section ".vernal.abi"
; CHECK: @llvm.used = appending global {{.*}}@__vernal_abi_note
; CHECK-NOT: @__vernal_lto
; PRE: @__vernal_lto_note = linkonce_odr hidden constant ptr @__vernal_lto_link_needs_vernal_cc, section ".vernal.lto"
; PRE: @llvm.used = appending global {{.*}}@__vernal_lto_note
; PRE-NOT: lshr
; BOTH-NOT: __vernal_lto
; BOTH: lshr
define void @f(ptr %p) {
  store i64 1, ptr %p
  ret void
}
