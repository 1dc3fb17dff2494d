/* bits/c++config.h - found before libstdc++'s own by what vernal-cc compiles.
 *
 * libstdc++.so holds ready-made members of std::string, and its headers tell the compiler to use them (`extern template`).
 * No pass has seen those, so that what they write into a string in a mapped file would be lost. -1 is libstdc++'s own
 * setting for "not for strings" (its debug checks use it): they are then compiled with the program.
 */
#include_next <bits/c++config.h>
#if defined(_GLIBCXX_EXTERN_TEMPLATE) && _GLIBCXX_EXTERN_TEMPLATE > 0
#undef _GLIBCXX_EXTERN_TEMPLATE
#define _GLIBCXX_EXTERN_TEMPLATE -1
#endif
