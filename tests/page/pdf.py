"""Small PDFs, as other programs write them."""

KOREAN = "안녕하세요 파리"


def pdf(*objects: bytes, trailer: bytes = b"") -> bytes:
    """Return a file of `objects`; the first one is its catalogue."""
    file, offsets = b"%PDF-1.4\n", []
    for number, value in enumerate(objects, 1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (number, value)
    count = len(objects) + 1
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % count
    end = b"trailer<</Size %d/Root 1 0 R%b>>\nstartxref\n%d\n%%%%EOF\n"
    return file + head + table + end % (count, trailer, len(file))


def written(content: bytes, trailer: bytes = b"", *more: bytes) -> bytes:
    """Return a file of one page; /F1 is Helvetica, /F2 a Korean font that is not embedded."""
    return pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 6 0 R"
        b"/Resources<</Font<</F1 4 0 R/F2 5 0 R>>>>>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Type/Font/Subtype/Type0/BaseFont/HYSMyeongJo-Medium/Encoding/UniKS-UCS2-H"
        b"/DescendantFonts[<</Type/Font/Subtype/CIDFontType0/BaseFont/HYSMyeongJo-Medium"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Korea1)/Supplement 1>>/FontDescriptor"
        b"<</Type/FontDescriptor/FontName/HYSMyeongJo-Medium/Flags 4/FontBBox[0 -200 1000 900]"
        b"/ItalicAngle 0/Ascent 800/Descent -200/StemV 80>>>>]>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(content), content),
        *more,
        trailer=trailer,
    )


REPORT = written(
    b"BT /F1 12 Tf 72 700 Td (Quarterly report) Tj 0 -20 Td (Sales rose by 12 %.) Tj ET "
    b"BT /F2 12 Tf 72 600 Td <" + KOREAN.encode("utf-16-be").hex().encode() + b"> Tj ET"
)
SCANNED = written(b"0 0 100 100 re f")
LOCKED = written(
    b"",
    b"/Encrypt 7 0 R/ID[<00><00>]",
    b"<</Filter/Standard/V 1/R 2/Length 40/P -4/O<%b>/U<%b>>>" % (b"41" * 32, b"42" * 32),
)
