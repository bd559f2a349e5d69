// Checks of what CUDA answers: an error of the runtime is a defect or a broken machine, and ends the rank.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "base/check.h"

// Errors of earlier kernels surface here too: the message then names the call that heard of it.
#define CUDA_CHECK(expression)                                                                                        \
  do {                                                                                                                \
    if (const cudaError_t cuda_check_error = (expression); cuda_check_error != cudaSuccess) {                         \
      ::shoestring::internal::CheckFailed(__FILE__, __LINE__,                                                         \
                                          std::string(#expression ": ") + cudaGetErrorName(cuda_check_error) + ": " + \
                                              cudaGetErrorString(cuda_check_error));                                  \
    }                                                                                                                 \
  } while (false)

// Behind every launch of a kernel.
#define CUDA_CHECK_LAUNCH() CUDA_CHECK(cudaGetLastError())
