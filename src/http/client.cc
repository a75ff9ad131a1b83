#include "http/client.h"

#include <curl/curl.h>
#include <fmt/core.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "core/text.h"
#include "http/address_guard.h"
#include "http/failure.h"
#include "http/lookups.h"
#include "http/proxy.h"
#include "http/url.h"

namespace relay::http {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxHeaderBytes = 256 * 1024;
constexpr milliseconds kLongestRetryAfter = std::chrono::hours(1);

struct FreeEasy {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct FreeMulti {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Easy = std::unique_ptr<CURL, FreeEasy>;
using Multi = std::unique_ptr<CURLM, FreeMulti>;

void initialise_once() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

bool starts_with_name(std::string_view line, std::string_view name) {
  return line.size() > name.size() && line[name.size()] == ':' &&
         equal_ignoring_case(line.substr(0, name.size()), name);
}

/// One request under way, and the handle that carries one after the other.
struct Transfer {
  Easy easy{curl_easy_init()};
  Request request;
  Response response;
  std::size_t max_bytes = 0;
  std::size_t header_bytes = 0;
  bool allow_private = true;
  LeasedSockets* sockets = nullptr;
  std::optional<Proxy> proxy;
  std::string checked_address;  // of the target, to which the proxy is asked to connect
  std::unique_ptr<curl_slist, FreeList> connect_to;
  Deadline resolved_by = Deadline::never();
  std::string refused_address;
  char why[CURL_ERROR_SIZE] = "";
};

std::size_t take_body(char* data, std::size_t, std::size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  std::string& body = transfer.response.body;
  const std::size_t room = transfer.max_bytes - std::min(transfer.max_bytes, body.size());
  body.append(data, std::min(room, size));
  if (size <= room) return size;
  transfer.response.truncated = true;
  return 0;  // ends the transfer
}

std::size_t take_header(char* data, std::size_t, std::size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.header_bytes += size;
  if (transfer.header_bytes > kMaxHeaderBytes) return 0;
  const std::string_view line(data, size);
  const std::string& wanted = transfer.request.error_header;
  if (!wanted.empty() && starts_with_name(line, wanted)) {
    transfer.response.error_header = trimmed(line.substr(wanted.size() + 1));
  }
  return size;
}

// The address here is the one that is connected to, whatever a name server said before or says
// next: https://curl.se/libcurl/c/CURLOPT_OPENSOCKETFUNCTION.html
curl_socket_t open_socket(void* user, curlsocktype, curl_sockaddr* to) {
  auto& transfer = *static_cast<Transfer*>(user);
  const bool is_target = !transfer.proxy;
  if (is_target && !transfer.allow_private && !is_public_address(to->addr)) {
    transfer.refused_address = address_text(to->addr);
    return CURL_SOCKET_BAD;
  }
  return transfer.sockets->open(to->family, to->socktype, to->protocol);
}

int close_socket(void* user, curl_socket_t socket) {
  return static_cast<LeasedSockets*>(user)->close(socket);
}

Failure failure_of(const Transfer& transfer, CURLcode code) {
  Failure failure;
  failure.code = code;
  failure.detail = transfer.why[0] ? transfer.why : curl_easy_strerror(code);
  failure.origin = origin_of(transfer.request.url);
  failure.timeout = transfer.request.timeout;
  failure.refused_address = transfer.refused_address;
  if (!transfer.proxy) return failure;
  failure.proxy = transfer.proxy->origin;
  failure.proxy_from = transfer.proxy->from;
  failure.tunnelled_to = transfer.checked_address;
  long number = 0;
  curl_easy_getinfo(transfer.easy.get(), CURLINFO_HTTP_CONNECTCODE, &number);
  failure.proxy_status = static_cast<int>(number);
  curl_easy_getinfo(transfer.easy.get(), CURLINFO_PROXY_SSL_VERIFYRESULT, &number);
  failure.proxy_not_trusted = number != 0;
  return failure;
}

}  // namespace

struct Client::Impl {
  Impl(ClientOptions given, Lease& lease)
      : options(std::move(given)), sockets(lease), multi(curl_multi_init()) {
    const auto most = static_cast<long>(options.max_connections);
    curl_multi_setopt(multi.get(), CURLMOPT_MAXCONNECTS, most);
    curl_multi_setopt(multi.get(), CURLMOPT_MAX_TOTAL_CONNECTIONS, most);
  }

  ~Impl() {
    for (const auto& transfer : busy) curl_multi_remove_handle(multi.get(), transfer->easy.get());
  }

  /// A handle with everything set that no request changes.
  std::unique_ptr<Transfer> make_transfer() {
    auto transfer = std::make_unique<Transfer>();
    transfer->max_bytes = options.max_response_bytes;
    transfer->allow_private = options.allow_private;
    transfer->sockets = &sockets;
    CURL* easy = transfer->easy.get();
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer.get());
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    // A name server that does not answer must not hold up the end of a request.
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    // The environment is read by `find_proxy` only.
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
    curl_easy_setopt(easy, CURLOPT_PROXYAUTH, CURLAUTH_BASIC);
    curl_easy_setopt(easy, CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    // A header of that name among the request's own takes its place.
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "pgtrickle-relay/" RELAY_VERSION);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(options.connect_timeout.count()));
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->why);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, &close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, &sockets);
    set_security(easy);
    return transfer;
  }

  void set_security(CURL* easy) {
    if (!options.tls_ca.empty()) {
      curl_easy_setopt(easy, CURLOPT_CAINFO, options.tls_ca.c_str());
      curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, options.tls_ca.c_str());
    }
    if (!options.tls_cert.empty()) {
      curl_easy_setopt(easy, CURLOPT_SSLCERT, options.tls_cert.c_str());
      curl_easy_setopt(easy, CURLOPT_SSLKEY, options.tls_key.c_str());
    }
    if (!options.tls_verify) {
      curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
      curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
      curl_easy_setopt(easy, CURLOPT_PROXY_SSL_VERIFYPEER, 0L);
      curl_easy_setopt(easy, CURLOPT_PROXY_SSL_VERIFYHOST, 0L);
    }
    if (!options.user.empty()) {
      curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
      curl_easy_setopt(easy, CURLOPT_USERNAME, options.user.c_str());
      curl_easy_setopt(easy, CURLOPT_PASSWORD, options.password.c_str());
    }
  }

  void start(std::size_t token, Request request) {
    std::unique_ptr<Transfer> transfer;
    if (idle.empty()) {
      transfer = make_transfer();
    } else {
      transfer = std::move(idle.back());
      idle.pop_back();
    }
    transfer->response = {};
    transfer->response.token = token;
    transfer->refused_address.clear();
    transfer->header_bytes = 0;
    transfer->why[0] = 0;
    transfer->request = std::move(request);
    transfer->proxy.reset();
    transfer->checked_address.clear();
    if (const auto found = find_way(*transfer); !found) {
      fail_at_once(std::move(transfer), found.error());
    } else if (transfer->proxy && !options.allow_private) {
      transfer->resolved_by =
          Deadline::after(std::min(options.connect_timeout, transfer->request.timeout));
      resolving.push_back(std::move(transfer));
      begin_resolved();
    } else {
      begin(std::move(transfer));
    }
  }

  /// Whether a request goes through a proxy.
  Result<void> find_way(Transfer& transfer) const {
    if (transfer.request.direct || !may_use_proxy) return {};
    const auto url = parse_url(transfer.request.url);
    if (!url) return fail(url.error());
    auto proxy = find_proxy(*url, options.proxy, &environment_variable);
    if (!proxy) return fail(proxy.error());
    transfer.proxy = std::move(*proxy);
    return {};
  }

  void begin(std::unique_ptr<Transfer> transfer) {
    set_way(*transfer);
    set_request(*transfer);
    curl_multi_add_handle(multi.get(), transfer->easy.get());
    busy.push_back(std::move(transfer));
  }

  void fail_at_once(std::unique_ptr<Transfer> transfer, Error error) {
    transfer->response.error = share(std::move(error));
    failed.push_back(std::move(transfer->response));
    idle.push_back(std::move(transfer));
  }

  /// The proxy would resolve the name by itself, and might find another address than was checked.
  /// So it is asked for the address, by CONNECT: the certificate is still that of the name.
  void begin_resolved() {
    if (resolving.empty()) return;
    lookups.drain();
    auto all = std::exchange(resolving, {});
    for (auto& transfer : all) {
      const std::string origin = origin_of(transfer->request.url);
      const std::string host = parse_url(transfer->request.url)->host;
      const auto* found = lookups.find(host);
      if (found && !found->usable.empty()) {
        transfer->checked_address = lookups.choose(host, *found);
        transfer->request.timeout -= spent_resolving(*transfer);
        begin(std::move(transfer));
      } else if (found && !found->refused.empty()) {
        const std::string refused = found->refused;
        lookups.failed(host);
        fail_at_once(std::move(transfer), private_address(origin, refused));
      } else if (found || transfer->resolved_by.passed()) {
        lookups.failed(host);
        const std::string proxy = transfer->proxy->origin;
        fail_at_once(std::move(transfer), unresolvable(origin, proxy));
      } else {
        resolving.push_back(std::move(transfer));
      }
    }
  }

  milliseconds spent_resolving(const Transfer& transfer) const {
    const auto budget = std::min(options.connect_timeout, transfer.request.timeout);
    return std::min(budget - transfer.resolved_by.left(), transfer.request.timeout);
  }

  static void set_way(Transfer& transfer) {
    CURL* easy = transfer.easy.get();
    const auto text_or_null = [](const std::string& text) {
      return text.empty() ? nullptr : text.c_str();
    };
    curl_easy_setopt(easy, CURLOPT_PROXY, transfer.proxy ? transfer.proxy->origin.c_str() : "");
    curl_easy_setopt(easy, CURLOPT_PROXYUSERNAME,
                     transfer.proxy ? text_or_null(transfer.proxy->user) : nullptr);
    curl_easy_setopt(easy, CURLOPT_PROXYPASSWORD,
                     transfer.proxy ? text_or_null(transfer.proxy->password) : nullptr);
    const std::string& address = transfer.checked_address;
    curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, address.empty() ? 0L : 1L);
    curl_slist* list = nullptr;
    if (!address.empty()) {
      // Any host and port of the URL: that address, and the same port.
      const bool is_ipv6 = address.find(':') != std::string::npos;
      const std::string host = is_ipv6 ? fmt::format("[{}]", address) : address;
      list = curl_slist_append(nullptr, fmt::format("::{}:", host).c_str());
    }
    curl_easy_setopt(easy, CURLOPT_CONNECT_TO, list);
    transfer.connect_to.reset(list);
  }

  static void set_request(Transfer& transfer) {
    CURL* easy = transfer.easy.get();
    Request& request = transfer.request;
    curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                     std::max(1L, static_cast<long>(request.timeout.count())));
    if (request.method == "HEAD") {
      curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, nullptr);
    } else if (request.method == "OPTIONS") {
      curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "OPTIONS");
    } else if (request.method == "GET") {
      curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, nullptr);
    } else {
      const std::string_view body =
          request.owned_body.empty() ? request.body : std::string_view(request.owned_body);
      curl_easy_setopt(easy, CURLOPT_POST, 1L);
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST,
                       request.method == "POST" ? nullptr : request.method.c_str());
      curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body.empty() ? "" : body.data());
      // Waiting for "100 Continue" would cost a second with servers that do not know it.
      if (curl_slist* longer = curl_slist_append(request.headers.list_, "Expect:")) {
        request.headers.list_ = longer;
      }
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request.headers.list_);
  }

  std::unique_ptr<Transfer> take_out(CURL* easy) {
    void* of = nullptr;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &of);
    const auto found = std::find_if(busy.begin(), busy.end(),
                                    [&](const auto& transfer) { return transfer.get() == of; });
    assert(found != busy.end());
    auto transfer = std::move(*found);
    *found = std::move(busy.back());
    busy.pop_back();
    curl_multi_remove_handle(multi.get(), easy);
    return transfer;
  }

  void finish(CURL* easy, CURLcode code, std::vector<Response>& responses) {
    auto transfer = take_out(easy);
    Response& response = transfer->response;
    if (code == CURLE_OK || response.truncated) {
      long status = 0;
      curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
      response.status = static_cast<int>(status);
      curl_off_t seconds = 0;
      curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
      response.retry_after = std::min<milliseconds>(
          std::chrono::seconds(std::min<curl_off_t>(seconds, 86400)), kLongestRetryAfter);
    } else {
      response.error = share(error_of(failure_of(*transfer, code)));
    }
    if (transfer->proxy) judge_proxy(*transfer);
    responses.push_back(std::move(response));
    idle.push_back(std::move(transfer));
  }

  /// A proxy that forwards a plain request answers in place of the server.
  void judge_proxy(Transfer& transfer) {
    Response& response = transfer.response;
    if (response.error && !transfer.checked_address.empty()) {
      lookups.failed(parse_url(transfer.request.url)->host);
    }
    const bool forwarded =
        transfer.checked_address.empty() && transfer.request.url.substr(0, 5) != "https";
    if (!forwarded || response.status != 407) return;
    Failure failure = failure_of(transfer, CURLE_OK);
    failure.proxy_status = response.status;
    const std::size_t token = response.token;
    response = {};
    response.token = token;
    response.error = share(error_of(failure));
  }

  std::size_t in_flight() const { return busy.size() + resolving.size() + failed.size(); }

  bool collect(std::vector<Response>& responses) {
    begin_resolved();
    bool any = !failed.empty();
    std::move(failed.begin(), failed.end(), std::back_inserter(responses));
    failed.clear();
    int running = 0;
    curl_multi_perform(multi.get(), &running);
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      finish(message->easy_handle, message->data.result, responses);
      any = true;
    }
    return any;
  }

  const ClientOptions options;
  const bool may_use_proxy = may_find_proxy(options.proxy, &environment_variable);
  LeasedSockets sockets;  // before the handles: they close what they still have open
  Multi multi;
  Lookups lookups;
  std::vector<std::unique_ptr<Transfer>> resolving;  // the address of their target is not known yet
  std::vector<std::unique_ptr<Transfer>> busy;
  std::vector<std::unique_ptr<Transfer>> idle;
  std::vector<Response> failed;  // before anything was sent
};

Client::Client(ClientOptions options, Lease& lease) {
  initialise_once();
  remember_proxy_passwords(options.proxy, &environment_variable);
  impl_ = std::make_unique<Impl>(std::move(options), lease);
}

Client::~Client() = default;

void Client::start(std::size_t token, Request request) {
  impl_->start(token, std::move(request));
}

std::size_t Client::in_flight() const {
  return impl_->in_flight();
}

void Client::wait(std::vector<Response>& responses, Deadline deadline, std::stop_token stop) {
  CURLM* multi = impl_->multi.get();
  const std::stop_callback wake(stop, [multi] { curl_multi_wakeup(multi); });
  while (impl_->in_flight() > 0 && !impl_->collect(responses)) {
    if (stop.stop_requested() || deadline.passed()) return;
    milliseconds longest = std::min(deadline.left(), milliseconds(1000));
    for (const auto& transfer : impl_->resolving) {
      longest = std::min(longest, transfer->resolved_by.left());
    }
    curl_waitfd resolved{impl_->lookups.fd(), CURL_WAIT_POLLIN, 0};
    curl_multi_poll(multi, &resolved, impl_->resolving.empty() ? 0 : 1,
                    static_cast<int>(longest.count()), nullptr);
  }
}

void Client::cancel_all() {
  std::move(impl_->resolving.begin(), impl_->resolving.end(), std::back_inserter(impl_->idle));
  impl_->resolving.clear();
  impl_->failed.clear();
  while (!impl_->busy.empty())
    impl_->idle.push_back(impl_->take_out(impl_->busy.back()->easy.get()));
}

Result<Response> Client::fetch(Request request, Deadline deadline, std::stop_token stop) {
  const std::string origin = origin_of(request.url);
  request.timeout = std::min(request.timeout, deadline.left());
  start(0, std::move(request));
  std::vector<Response> responses;
  wait(responses, deadline, stop);
  if (responses.empty()) {
    cancel_all();
    if (stop.stop_requested()) {
      return fail(ErrorClass::cancelled, "stopped", fmt::format("stopped while asking {}", origin));
    }
    return fail(ErrorClass::transient, "timeout", fmt::format("{} did not answer in time", origin),
                "it is tried again");
  }
  if (responses[0].error) return fail(*responses[0].error);
  return std::move(responses[0]);
}

}  // namespace relay::http
