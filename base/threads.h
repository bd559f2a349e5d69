// Threads for work that one of them can do as well as several.
#pragma once

#include <functional>
#include <thread>
#include <vector>

namespace shoestring {

// Threads that run body(0), body(1), ...: `count` of them, or, with a warning in the log, as many as the system gives,
// which may be none. The caller joins them; `body` is copied.
std::vector<std::thread> StartThreads(int count, const std::function<void(int)>& body);

}  // namespace shoestring
