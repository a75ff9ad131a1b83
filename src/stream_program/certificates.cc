#include "stream_program/certificates.h"

#include <fmt/core.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace relay::stream_program {

Certificates::Certificates(int file) : file_(file), path_(fmt::format("/proc/self/fd/{}", file)) {}

Certificates::~Certificates() {
  ::close(file_);
}

Result<std::shared_ptr<const Certificates>> Certificates::make(std::string_view pem) {
  const int file = ::memfd_create("certificates", MFD_CLOEXEC);
  const auto failed = [](const char* doing) {
    return fail(ErrorClass::transient, "certificates",
                fmt::format("{} trusted_root_certs: {}", doing, std::strerror(errno)));
  };
  if (file < 0) return failed("keeping");
  std::shared_ptr<const Certificates> made(new Certificates(file));
  while (!pem.empty()) {
    const ssize_t written = ::write(file, pem.data(), pem.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("writing");
    pem.remove_prefix(static_cast<std::size_t>(written));
  }
  return made;
}

}  // namespace relay::stream_program
