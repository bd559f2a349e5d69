// For death tests: a process that the system gives few threads.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include "base/check.h"

namespace shoestring {

// From here on the system gives this process at most so many threads beside its first one; fewer where its user runs
// others.
inline void AllowFewThreads(rlim_t threads) {
  const rlimit limit{threads, threads};
  CHECK_EQ(setrlimit(RLIMIT_NPROC, &limit), 0);
  constexpr uid_t kNobody = 65534;  // root has no limit
  if (geteuid() == 0) CHECK_EQ(setuid(kNobody), 0);
}

}  // namespace shoestring
