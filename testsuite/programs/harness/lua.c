/* lua.c - a Lua interpreter whose whole state, from the lua_State to the last string, lives in the mapped file. */
#include "persist.h"

#include "lauxlib.h"
#include "lua.h"
#include "lualib.h"

/* Makes and changes tables, strings, closures, coroutines and metatables, and lets the collector run. */
static const char script[] =
    "local words, people, log, co = {}, {}, {}, nil\n"
    "local Person = {} Person.__index = Person\n"
    "function Person.new(name) return setmetatable({name = name, friends = {}, calls = 0}, Person) end\n"
    "function Person:call(other) self.calls = self.calls + 1; self.friends[other] = (self.friends[other] or 0) + 1 end\n"
    "setmetatable(log, {__newindex = function(t, k, v) rawset(t, k, v .. '!') end})\n"
    "co = coroutine.wrap(function() local a, b = 0, 1 while true do coroutine.yield(a) a, b = b, (a + b) % 1000000007 end end)\n"
    "local sum = 0\n"
    "function step(n)\n"
    "  local key = 'word' .. (n * 7919 % 257)\n"
    "  words[key] = (words[key] or '') .. string.char(97 + n % 26)\n"
    "  if #words[key] > 40 then words[key] = words[key]:rep(2):sub(-20):upper():lower() end\n"
    "  local name = 'p' .. n % 61\n"
    "  local p = people[name] or Person.new(name)\n"
    "  people[name] = p\n"
    "  p:call('p' .. (n * 31 % 61))\n"
    "  if n % 97 == 0 then people['p' .. n % 13] = nil end\n"
    "  rawset(log, n % 50 + 1, nil); log[n % 50 + 1] = string.format('%d:%s:%g', n, key, n / 7)\n"
    "  sum = (sum + co() + select('#', table.unpack({1, 2, 3}))) % 1000003\n"
    "  local t = {} for i = 1, 30 do t[i] = (i * n) % 101 end\n"
    "  table.sort(t, function(a, b) return a > b end)\n"
    "  sum = sum + t[1]\n"
    "  local ok, err = pcall(function() if n % 5 == 0 then error({code = n}) end return n end)\n"
    "  if not ok then sum = sum + err.code % 3 end\n"
    "  if n % 40 == 0 then collectgarbage(n % 80 == 0 and 'generational' or 'incremental') end\n"
    "end\n"
    "function digest()\n"
    "  local out = {tostring(sum)}\n"
    "  local keys = {} for k in pairs(words) do keys[#keys + 1] = k end table.sort(keys)\n"
    "  for _, k in ipairs(keys) do out[#out + 1] = k .. '=' .. words[k] end\n"
    "  keys = {} for k in pairs(people) do keys[#keys + 1] = k end table.sort(keys)\n"
    "  for _, k in ipairs(keys) do local f = {} for n, c in pairs(people[k].friends) do f[#f + 1] = n .. c end\n"
    "    table.sort(f) out[#out + 1] = k .. people[k].calls .. table.concat(f, ',') end\n"
    "  for i = 1, 50 do out[#out + 1] = tostring(log[i]) end\n"
    "  return table.concat(out, ';')\n"
    "end\n";

static void *allocate(void *heap, void *memory, size_t old, size_t size) {
  (void)old;
  if (size != 0) return heap_realloc((struct heap *)heap, memory, size);
  heap_free((struct heap *)heap, memory);
  return NULL;
}

static void must(lua_State *lua, int status) {
  if (status == LUA_OK) return;
  fprintf(stderr, "lua: %s\n", lua_tostring(lua, -1));
  exit(2);
}

void program_start(void) {
  lua_State *lua = lua_newstate(allocate, &persist->heap);
  if (lua == NULL) die("lua_newstate");
  persist->root = lua;
  luaL_requiref(lua, "_G", luaopen_base, 1);
  luaL_requiref(lua, LUA_STRLIBNAME, luaopen_string, 1);
  luaL_requiref(lua, LUA_TABLIBNAME, luaopen_table, 1);
  luaL_requiref(lua, LUA_COLIBNAME, luaopen_coroutine, 1);
  lua_settop(lua, 0);
  must(lua, luaL_dostring(lua, script));
}

/* Functions of the program are where they were: it is linked without -pie. */
void program_resume(void) {}

void program_step(uint64_t number) {
  lua_State *lua = (lua_State *)persist->root;
  lua_getglobal(lua, "step");
  lua_pushinteger(lua, (lua_Integer)number);
  must(lua, lua_pcall(lua, 1, 0, 0));
}

uint64_t program_digest(void) {
  lua_State *lua = (lua_State *)persist->root;
  lua_getglobal(lua, "digest");
  must(lua, lua_pcall(lua, 0, 1, 0));
  size_t length;
  const char *text = lua_tolstring(lua, -1, &length);
  uint64_t digest = digest_bytes(0, text, length);
  lua_settop(lua, 0);
  return digest;
}
