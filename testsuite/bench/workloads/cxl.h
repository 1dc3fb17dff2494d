/* cxl.h - puts a mapping of this process behind the emulated CXL device, when the harness asks for it by setting
 * BENCH_CXL_LIB to the emulator's library. Vernal's own runtime does this itself (VERNAL_MEDIA=cxl-ssd). */
#ifndef BENCH_CXL_H
#define BENCH_CXL_H
#include "protocol.h"
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

static uint64_t (*cxl_miss_counter)(void);

static inline void cxl_attach(void *addr, size_t len) {
  const char *path = getenv("BENCH_CXL_LIB");
  if (!path)
    return;
  void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!lib)
    bench_fail("the CXL emulator", dlerror());
  int (*attach)(void *, size_t) = (int (*)(void *, size_t))dlsym(lib, "vernal_cxl_emulate");
  cxl_miss_counter = (uint64_t(*)(void))dlsym(lib, "vernal_cxl_misses");
  if (!attach || !cxl_miss_counter)
    bench_fail("the CXL emulator", "vernal_cxl_emulate or vernal_cxl_misses is missing");
  if (attach(addr, len) != 0)
    bench_fail("the CXL emulator", "cannot attach (see the message above)");
}

uint64_t cxl_misses(void) {
  if (!cxl_miss_counter) /* a Vernal program: the runtime carries the emulator */
    cxl_miss_counter = (uint64_t(*)(void))dlsym(RTLD_DEFAULT, "vernal_cxl_misses");
  return cxl_miss_counter ? cxl_miss_counter() : 0;
}

#endif
