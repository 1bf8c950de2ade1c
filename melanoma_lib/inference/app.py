"""The server of the web page of `melanoma serve`: its routes, and how it starts and ends."""

import io
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError, printable
from melanoma_lib.core.files import PROJECT
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.inference import page, report, wording
from melanoma_lib.inference.predictor import Predictor, result_row
from melanoma_lib.inference.security import (
    BUSY,
    COOKIE,
    LOCAL_HOSTS,
    SESSION_SECONDS,
    WRONG,
    Login,
    SecurityMiddleware,
)
from melanoma_lib.inference.uploads import Picture, UploadLimiter, read_picture

MAX_FORM_BYTES = 4096  # of a name and a password


class WebPage:
    """The page of one or more models: its routes, and the functions behind them.

    The first model answers unless a request names another by `model`, its folder's name.
    """

    def __init__(
        self,
        predictors: Sequence[Predictor],
        operating_point: str = "",
        login: Login | None = None,
    ):
        self.predictors = {predictor.folder.name: predictor for predictor in predictors}
        self.operating_point = predictors[0].operating_point(operating_point)["name"]
        self.login, self.uploads = login, UploadLimiter()
        figures = Config(output_dir=str(predictors[0].folder.resolve().parent)).figures
        self.figures = {path.name: path for path in sorted(figures.glob("*.png"))}
        self.page = page.page_html(predictors, self.operating_point, bool(self.figures))
        self.examples = {}
        for code, image in page.example_images().items():
            image.save(buffer := io.BytesIO(), "PNG")
            self.examples[code] = buffer.getvalue()

    def routes(self) -> list[Route | Mount]:
        """All addresses of the page."""
        return [
            Route("/", lambda request: HTMLResponse(self.page)),
            Route("/login", self.show_login),
            Route("/login", self.log_in, methods=["POST"]),
            Route("/examples/{code}", self.show_example),
            Route("/model-card", self.show_model_card),
            Route("/figures", lambda request: HTMLResponse(page.figures_html(self.figures))),
            Route("/figures/{name}", self.show_figure),
            *(Route(path, partial(self._respond, function=function), methods=["POST"])
              for path, function in ON_PICTURES.items()),
            Mount("/static", StaticFiles(directory=page.STATIC)),
        ]

    def show_example(self, request: Request) -> Response:
        """A generated picture of a diagnosis."""
        if (code := request.path_params["code"]) not in self.examples:
            raise HTTPException(404, "There is no such example.")
        return Response(self.examples[code], media_type="image/png")

    def show_model_card(self, request: Request) -> Response:
        """The model card of the project."""
        return HTMLResponse(page.model_card_html((PROJECT / "MODEL_CARD.md").read_text()))

    def show_figure(self, request: Request) -> Response:
        """A figure of the run."""
        if (name := request.path_params["name"]) not in self.figures:
            raise HTTPException(404, "There is no such figure.")
        return FileResponse(self.figures[name])

    # -- pictures ------------------------------------------------------------------------------

    async def _respond(self, request: Request, function: Callable) -> Response:
        """Runs one of `ON_PICTURES` on the picture in the body, when the request's turn comes.

        In a thread, as `function(predictor, picture, query)`; `model` in the query is a folder.
        """
        query = dict(request.query_params)
        name = query.get("model", next(iter(self.predictors)))
        if name not in self.predictors:
            there = ", ".join(self.predictors)
            raise HTTPException(404, f"There is no model of that name; there is {there}.")
        if query.get("class", CLASS_NAMES[0]) not in CLASS_NAMES:
            raise HTTPException(404, f"There is no such class; there is {', '.join(CLASS_NAMES)}.")
        predictor = self.predictors[name]

        def work(data: bytes) -> dict | Response:
            return function(predictor, read_picture(data, predictor.image_size), query)

        async with self.uploads.receive(request) as data:
            if await request.is_disconnected():  # the visitor has asked for another picture
                return Response(status_code=204)
            found = await run_in_threadpool(work, data)
        return found if isinstance(found, Response) else JSONResponse(found)

    # -- login ---------------------------------------------------------------------------------

    def show_login(self, request: Request) -> Response:
        """The page that asks for name and password."""
        return HTMLResponse(page.login_html())

    async def log_in(self, request: Request) -> Response:
        """Checks name and password, and sends on to the page with a cookie."""
        form = parse_qs((await _read_form(request)).decode("utf-8", "replace"))
        given = [form.get(name, [""])[0] for name in ("user", "password")]
        if self.login:
            address = request.client.host if request.client else ""  # behind a proxy, as it says
            correct, waiting = self.login.authenticate(address, *given)
            if waiting:
                seconds = str(math.ceil(waiting))
                text = page.login_html(BUSY.format(seconds=seconds))
                return HTMLResponse(text, 429, {"Retry-After": seconds})
            if not correct:
                return HTMLResponse(page.login_html(WRONG), 401)
        response = Response(status_code=303, headers={"Location": "./"})
        if self.login:
            response.set_cookie(
                COOKIE, self.login.make_cookie(), SESSION_SECONDS, httponly=True,
                samesite="strict", secure=request.url.scheme == "https",
            )  # fmt: skip
        return response


async def _read_form(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_FORM_BYTES:
            raise HTTPException(413, "No name and password are that long.")
    return bytes(data)


# -- what is made of one picture ---------------------------------------------------------------


def answer_picture(predictor: Predictor, picture: Picture, query: dict) -> dict:
    """All fragments of the page, with the heat map of the most probable class or of `class`."""
    (prediction,) = predictor.predict([picture.image])
    code = query.get("class", prediction.predicted_class)
    (heat,) = predictor.heat_maps([picture.image], [code])
    return page.answer_fragments(predictor, prediction, picture, code, heat)


def draw_heat_map(predictor: Predictor, picture: Picture, query: dict) -> dict:
    """The heat map of `class`."""
    code = query.get("class", CLASS_NAMES[0])
    (heat,) = predictor.heat_maps([picture.image], [code])
    return {"code": code, "heat": page.heat_url(heat)}


def predict_document(predictor: Predictor, picture: Picture, query: dict) -> dict:
    """The document of `melanoma predict --json`, at the operating point `point`."""
    point = predictor.operating_point(query.get("point", ""))
    (prediction,) = predictor.predict([picture.image])
    row = result_row(prediction, predictor.decide(prediction, point["name"]))
    return wording.json_document(predictor, point, [{"image": query.get("name", "")} | row])


def write_report(predictor: Predictor, picture: Picture, query: dict) -> Response:
    """A report as a file, `format` `pdf` or `json`, with the heat map of `class`.

    Query besides: `name` of the picture, and `point`, an operating point. Without `class`, the map
    is that of the most probable one.
    """
    (prediction,) = predictor.predict([picture.image])
    about = {
        "name": printable(query.get("name", "")),
        "point": predictor.operating_point(query.get("point", ""))["name"],
        "class": query.get("class", prediction.predicted_class),
    }
    (heat,) = predictor.heat_maps([picture.image], [about["class"]])
    given = predictor, prediction, picture, heat, about
    if query.get("format") == "json":
        return JSONResponse(report.report_document(*given))
    return Response(report.report_pdf(*given), media_type="application/pdf")


ON_PICTURES: dict[str, Callable[[Predictor, Picture, dict], dict | Response]] = {
    "/answer": answer_picture,
    "/heat-map": draw_heat_map,
    "/report": write_report,
    "/predict": predict_document,
}

# -- the server --------------------------------------------------------------------------------


def build_app(site: WebPage, hosts: tuple[str, ...] = ()) -> SecurityMiddleware:
    """The page as an ASGI application; `hosts` are the names it may be called by, any if empty."""
    handlers = {MelanomaError: lambda request, error: PlainTextResponse(str(error), 422)}
    pages = Starlette(routes=site.routes(), exception_handlers=handlers)
    return SecurityMiddleware(pages, site.login, hosts)


class Server:
    """A page that is served in a background thread until `close`."""

    def __init__(self, site: WebPage, listener: socket.socket):
        host, port, *_ = listener.getsockname()
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        # With a login it may have any name: that of the proxy before it.
        names = () if site.login else LOCAL_HOSTS
        self._server = uvicorn.Server(uvicorn.Config(
            build_app(site, names), log_level="warning", access_log=False, server_header=False,
            lifespan="off", ws="none", timeout_graceful_shutdown=1,
        ))  # fmt: skip
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, daemon=True
        )
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def close(self) -> None:
        """Ends the server; requests that are not answered in a second are broken off."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # breaking off is no error
        self._server.should_exit = True
        self._thread.join(5)


def serve(site: WebPage, listener: socket.socket) -> None:
    """Serves the page until interrupted."""
    for predictor in site.predictors.values():  # the first answer loads libraries, which takes long
        example = read_picture(site.examples[CLASS_NAMES[0]], predictor.image_size)
        answer_picture(predictor, example, {})
    server = Server(site, listener)
    try:
        print(f"the page is at {server.url}; Ctrl+C ends it", flush=True)
        while True:
            time.sleep(0.5)  # one long wait could begin just after a signal
    finally:
        server.close()
