# Writes a C++ source that holds a serialised descriptor set, so that the program can print its own reference.
# cmake -DINPUT=x.desc -DOUTPUT=x.cc -P embed_descriptors.cmake
file(READ "${INPUT}" bytes HEX)
string(LENGTH "${bytes}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n"
       bytes "${bytes}")
file(WRITE "${OUTPUT}.new" "// The schema with its comments, as a serialised FileDescriptorSet; generated.
namespace shoestring::config::internal {
extern const unsigned char kSchemaDescriptors[] = {
${bytes}};
extern const int kSchemaDescriptorsSize = ${size};
}  // namespace shoestring::config::internal
")
file(RENAME "${OUTPUT}.new" "${OUTPUT}")
