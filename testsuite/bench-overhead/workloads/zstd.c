/* zstd: compresses and decompresses text-like and binary data at several levels. */
#include "zstd.h"
#include "measure.h"
#include <string.h>

static uint64_t work(int scale) {
  size_t const n = 600 * 1000;
  char *in = malloc(n), *back = malloc(n);
  size_t const cap = ZSTD_compressBound(n);
  char *out = malloc(cap);
  uint64_t x = 88172645463325252u, h = 0;
  static const char *const words[] = {"the ", "quick ", "persistent ", "memory ", "store ", "line ", "of ", "commit ", "and ", "\n"};
  if (!in || !back || !out)
    exit(1);
  for (size_t i = 0; i < n;) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    if (x % 16 < 14) {
      const char *w = words[x / 16 % 10];
      size_t l = strlen(w);
      if (l > n - i)
        l = n - i;
      memcpy(in + i, w, l), i += l;
    } else
      for (int k = 0; k < 6 && i < n; k++)
        in[i++] = (char)(x >> 8 * k);
  }
  static const int levels[] = {1, 3, 6, 12, 19};
  for (int r = 0; r < scale; r++)
    for (int l = 0; l < 5; l++) {
      size_t c = ZSTD_compress(out, cap, in, levels[l] == 19 ? n / 4 : n, levels[l]);
      if (ZSTD_isError(c))
        exit(1);
      h = mix(h, c);
      for (int d = 0; d < 4; d++) {
        size_t b = ZSTD_decompress(back, n, out, c);
        if (ZSTD_isError(b) || memcmp(in, back, b))
          exit(1);
        h = mix(h, b);
      }
    }
  free(in), free(back), free(out);
  return h;
}
