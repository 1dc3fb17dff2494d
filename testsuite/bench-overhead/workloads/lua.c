/* The Lua interpreter: calls, tables, strings, closures, sorting, garbage. */
#include "lauxlib.h"
#include "lua.h"
#include "lualib.h"
#include "measure.h"

static const char *const script =
    "local scale = ...\n"
    "local h = 0\n"
    "local function mix(v) h = (h * 31 + v) % 4294967296 end\n"
    "local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n"
    "for r = 1, scale do\n"
    "  mix(fib(22))\n"
    "  local t = {}\n"
    "  for i = 1, 20000 do t[i] = (i * 7919) % 20011 end\n"
    "  table.sort(t)\n"
    "  for i = 1, #t, 97 do mix(t[i]) end\n"
    "  local words = {}\n"
    "  for i = 1, 4000 do words[#words + 1] = ('w' .. i):rep(2):upper() end\n"
    "  local text = table.concat(words, ' ')\n"
    "  local n = 0\n"
    "  for w in text:gmatch('%w+') do n = n + #w end\n"
    "  mix(n)\n"
    "  local objects = {}\n"
    "  for i = 1, 8000 do\n"
    "    local o = setmetatable({id = i, next = objects[i - 1]}, {__index = function(_, k) return #k end})\n"
    "    objects[i] = o\n"
    "    mix(o.id + o.missing)\n"
    "  end\n"
    "  local counters = {}\n"
    "  for i = 1, 2000 do local c = 0; counters[i] = function(d) c = c + d; return c end end\n"
    "  for k = 1, 10 do for i = 1, #counters do mix(counters[i](k)) end end\n"
    "  local m = {}\n"
    "  for i = 1, 60 do m[i] = {} for j = 1, 60 do m[i][j] = i * j % 7 + 0.5 end end\n"
    "  local s = 0.0\n"
    "  for i = 1, 60 do for j = 1, 60 do local a = 0.0 for k = 1, 60 do a = a + m[i][k] * m[k][j] end s = s + a end end\n"
    "  mix(math.floor(s))\n"
    "  local co = coroutine.wrap(function() for i = 1, 5000 do coroutine.yield(i) end end)\n"
    "  for i = 1, 5000 do mix(co()) end\n"
    "end\n"
    "return h\n";

static uint64_t work(int scale) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_loadstring(L, script)) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    exit(1);
  }
  lua_pushinteger(L, scale);
  if (lua_pcall(L, 1, 1, 0)) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    exit(1);
  }
  uint64_t h = (uint64_t)lua_tointeger(L, -1);
  lua_close(L);
  return h;
}
