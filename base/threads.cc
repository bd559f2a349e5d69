// Starting threads until the system refuses.
#include "base/threads.h"

#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace shoestring {

std::vector<std::thread> StartThreads(int count, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  threads.reserve(count);
  for (int i = 0; i < count; ++i) {
    try {
      threads.emplace_back(body, i);
    } catch (const std::system_error& error) {
      LogWarning(absl::StrCat("the system gives ", i, " of ", count, " threads (", error.code().message(),
                              "), so the work takes longer; raise the limit of threads and memory (ulimit -u, ulimit ",
                              "-v, a container's)"));
      break;
    }
  }
  return threads;
}

}  // namespace shoestring
