/* The runtime's names, for programs that map nothing: a mark that gets here is a bug of the pass. */
#include <stdlib.h>
const char __vernal_abi_b1 = 1;
__attribute__((preserve_most)) void __vernal_mark_line(void *p) { (void)p, abort(); }
__attribute__((preserve_most)) void __vernal_mark_range(void *p, size_t n) { (void)p, (void)n, abort(); }
__attribute__((preserve_most)) void __vernal_mark_cstr(void *p) { (void)p, abort(); }
