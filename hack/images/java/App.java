import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.io.PrintWriter;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicLong;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.apache.catalina.Context;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Tomcat;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.IntPoint;
import org.apache.lucene.document.NumericDocValuesField;
import org.apache.lucene.document.StoredField;
import org.apache.lucene.document.TextField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.queryparser.classic.ParseException;
import org.apache.lucene.queryparser.classic.QueryParser;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.store.ByteBuffersDirectory;

/**
 * A shop's catalogue: Tomcat in front, Lucene behind, everything in memory.
 *
 * <p>At the start it makes its products, indexes them in full text, renders a page for
 * each and keeps it in memory (100 MB in all), runs the searches that customers make most, and only then opens its port: the class loading, indexing
 * and compiling that a checkpoint saves a start from doing.
 *
 * <ul>
 *   <li>{@code GET /} who answers: hostname, pid, boot id, requests so far, memory
 *   <li>{@code GET /search?q=...} the products that match
 *   <li>{@code GET /product?sku=...} a product's page
 *   <li>{@code GET /stream} a slow answer in chunks (chunks=, interval= in seconds)
 * </ul>
 */
public final class App {
    private static final int PRODUCTS = number("PRODUCTS", 25_000);
    private static final int PORT = number("PORT", 8080);
    private static final String BOOT_ID = UUID.randomUUID().toString();
    private static final AtomicLong REQUESTS = new AtomicLong();
    private static final String[] WORDS = (
            "archive bridge candle desert engine forest garden harbor island jacket kernel ladder "
            + "market needle orange pencil quarry rocket silver temple umbrella valley window yellow "
            + "anchor basket copper dragon ember falcon glacier hammer ivory jungle kettle lantern "
            + "mirror nectar oyster parcel quartz ribbon saddle thunder uniform velvet walnut zephyr "
            + "running painted waterproof folding lightest wooden portable ancient modern quietly "
            + "cooking travelling children workers builders sleeping reading writing cycling sailing")
            .split(" ");

    /** How many other products a page shows. */
    private static final int RELATED = 50;

    private final Map<String, Product> products = new HashMap<>();
    private final Map<String, byte[]> pages = new HashMap<>();
    private final IndexSearcher searcher;

    record Product(String sku, String name, String text, int cents) {}

    private App() throws IOException {
        var directory = new ByteBuffersDirectory();
        var config = new IndexWriterConfig(new EnglishAnalyzer()).setRAMBufferSizeMB(16);
        try (var writer = new IndexWriter(directory, config)) {
            var random = new Random(7);
            for (int i = 0; i < PRODUCTS; i++) {
                var product = new Product("sku-" + i, phrase(random, 3), phrase(random, 30), 99 + random.nextInt(99_900));
                products.put(product.sku(), product);
                pages.put(product.sku(), page(product, i));
                writer.addDocument(document(product));
            }
            writer.forceMerge(1);
        }
        searcher = new IndexSearcher(DirectoryReader.open(directory));
    }

    private static int number(String name, int fallback) {
        var value = System.getenv(name);
        return value == null ? fallback : Integer.parseInt(value);
    }

    private static String phrase(Random random, int words) {
        var text = new StringBuilder();
        for (int i = 0; i < words; i++) {
            // Few words are common and most are rare, as in real text.
            var place = (int) (WORDS.length * Math.pow(random.nextDouble(), 2));
            text.append(i == 0 ? "" : " ").append(WORDS[place]);
            if (random.nextInt(8) == 0) {
                text.append(random.nextInt(1000));
            }
        }
        return text.toString();
    }

    /** The page of product {@code number}, with those that came before it. */
    private byte[] page(Product product, int number) {
        var html = new StringBuilder("<h1>" + product.name() + "</h1><p>" + product.text() + "</p><ul>");
        for (int i = number - 1; i >= Math.max(0, number - RELATED); i--) {
            var other = products.get("sku-" + i);
            html.append("<li><a href=\"/product?sku=").append(other.sku()).append("\">")
                    .append(other.name()).append("</a> ").append(other.cents()).append("</li>");
        }
        return html.append("</ul>").toString().getBytes(StandardCharsets.UTF_8);
    }

    private static Document document(Product product) {
        var document = new Document();
        document.add(new StoredField("sku", product.sku()));
        document.add(new TextField("name", product.name(), Field.Store.NO));
        document.add(new TextField("text", product.text(), Field.Store.NO));
        document.add(new IntPoint("price", product.cents()));
        document.add(new NumericDocValuesField("cents", product.cents()));
        return document;
    }

    private List<Product> search(String text, int limit) throws IOException {
        try {
            var query = new QueryParser("text", new EnglishAnalyzer()).parse(QueryParser.escape(text));
            var found = new ArrayList<Product>();
            for (ScoreDoc hit : searcher.search(query, limit).scoreDocs) {
                found.add(products.get(searcher.doc(hit.doc).get("sku")));
            }
            return found;
        } catch (ParseException e) {
            throw new IOException(e);
        }
    }

    private void warm() throws IOException {
        for (int i = 0; i < 600; i++) {
            search(WORDS[i % WORDS.length] + " " + WORDS[(i * 7 + 3) % WORDS.length], 10);
        }
    }

    private static long residentBytes() throws IOException {
        return Long.parseLong(Files.readString(Path.of("/proc/self/statm")).split(" ")[1]) * 4096;
    }

    private static void logged(HttpServletRequest request, int status) {
        var query = request.getQueryString() == null ? "" : "?" + request.getQueryString();
        System.out.println(request.getRemoteAddr() + " " + request.getMethod() + " " + request.getRequestURI() + query + " " + status);
    }

    /** Answers all paths. */
    private static final class Shop extends HttpServlet {
        private static final long serialVersionUID = 1L;
        private final transient App app;

        Shop(App app) {
            this.app = app;
        }

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            var count = REQUESTS.incrementAndGet();
            response.setContentType("application/json");
            switch (request.getRequestURI()) {
                case "/" -> response.getWriter().printf(
                        "{\"app\":\"java\",\"hostname\":\"%s\",\"pid\":%d,\"boot_id\":\"%s\",\"requests\":%d,\"rss_bytes\":%d,\"documents\":%d}%n",
                        hostname(), ProcessHandle.current().pid(), BOOT_ID, count, residentBytes(), PRODUCTS);
                case "/search" -> found(request.getParameter("q"), response.getWriter());
                case "/product" -> product(request.getParameter("sku"), response);
                case "/stream" -> stream(request, response);
                default -> response.sendError(HttpServletResponse.SC_NOT_FOUND);
            }
            logged(request, response.getStatus());
        }

        private void found(String query, PrintWriter out) throws IOException {
            out.printf("{\"boot_id\":\"%s\",\"results\":[", BOOT_ID);
            var separator = "";
            for (Product product : app.search(query == null ? "silver harbor" : query, 10)) {
                out.printf("%s{\"sku\":\"%s\",\"name\":\"%s\",\"cents\":%d}", separator, product.sku(), product.name(), product.cents());
                separator = ",";
            }
            out.println("]}");
        }

        private void product(String sku, HttpServletResponse response) throws IOException {
            var page = app.pages.get(sku);
            if (page == null) {
                response.sendError(HttpServletResponse.SC_NOT_FOUND);
                return;
            }
            response.setContentType("text/html; charset=utf-8");
            response.getOutputStream().write(page);
        }

        private void stream(HttpServletRequest request, HttpServletResponse response) throws IOException {
            var chunks = request.getParameter("chunks");
            var interval = request.getParameter("interval");
            response.setContentType("text/plain");
            for (int i = 0; i < (chunks == null ? 30 : Integer.parseInt(chunks)); i++) {
                response.getWriter().println("chunk " + i + " " + BOOT_ID);
                response.flushBuffer();
                try {
                    Thread.sleep((long) (1000 * (interval == null ? 1.0 : Double.parseDouble(interval))));
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                    return;
                }
            }
        }
    }

    /** The hostname as it is now: the JVM's own is looked up once and kept. */
    private static String hostname() throws IOException {
        var kernel = Path.of("/proc/sys/kernel/hostname");
        return Files.isReadable(kernel) ? Files.readString(kernel).strip() : InetAddress.getLocalHost().getHostName();
    }

    /** Opens the port and waits for the end. */
    public static void main(String[] arguments) throws Exception {
        Logger.getLogger("org.apache").setLevel(Level.WARNING);
        var started = System.nanoTime();
        var app = new App();
        app.warm();

        var tomcat = new Tomcat();
        tomcat.setBaseDir(Files.createTempDirectory("tomcat").toString());
        var connector = new Connector();
        connector.setPort(PORT);
        connector.setProperty("address", "0.0.0.0");
        connector.setProperty("maxThreads", "16");
        tomcat.setConnector(connector);
        Context context = tomcat.addContext("", null);
        var shop = Tomcat.addServlet(context, "shop", new Shop(app));
        shop.setLoadOnStartup(1);
        shop.addMapping("/");
        tomcat.start();
        System.out.printf("ready boot_id=%s port=%d after=%.2fs rss=%dMiB%n",
                BOOT_ID, PORT, (System.nanoTime() - started) / 1e9, residentBytes() >> 20);
        tomcat.getServer().await();
    }
}
