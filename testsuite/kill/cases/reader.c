/* Maps a file read-only and prints its first word.   reader FILE */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  int fd = open(argv[1], O_RDONLY);
  if (fd < 0) return 3;
  const uint64_t *at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return 4;
  printf("%llu\n", (unsigned long long)at[0]);
  return 0;
}
