# The CUDA language and libraries, for one target: libshoestring_cuda.so (kernels/cuda/CMakeLists.txt).
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  # CMake itself looks for nvcc on PATH only.
  find_program(SHOESTRING_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda/bin)
  if(SHOESTRING_NVCC)
    set(CMAKE_CUDA_COMPILER ${SHOESTRING_NVCC})
  endif()
endif()
# Device code is for one processor, named in full: for any other, CMake's form or nvcc's default, ptxas refuses wgmma.
set(CMAKE_CUDA_ARCHITECTURES OFF)
set(SHOESTRING_GENCODE "-gencode arch=compute_90a,code=sm_90a")
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
enable_language(CUDA)
# CMake 3.25 does not know nvcc's C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -lineinfo")
if(SHOESTRING_CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${SHOESTRING_CCACHE})
endif()

find_package(CUDAToolkit 13.0 REQUIRED)
# These two come without a CMake package.
find_path(SHOESTRING_CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
find_library(SHOESTRING_CUDNN cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)
find_path(SHOESTRING_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
find_library(SHOESTRING_NCCL nccl HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)
