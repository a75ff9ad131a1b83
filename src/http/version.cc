#include "http/version.h"

#include <curl/curl.h>

namespace relay::http {

std::string library_version() {
  return curl_version_info(CURLVERSION_NOW)->version;
}

}  // namespace relay::http
