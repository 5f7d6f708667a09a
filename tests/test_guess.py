"""Texts in old encodings are read as what they say, whether all their words are foreign or one in a hundred is."""

import pytest

from cptlib import formats

WESTERN, CENTRAL = ("cp1252", "latin-1", "mac_roman", "cp850"), ("cp1250", "iso8859_2")
CYRILLIC = ("cp1251", "koi8_r", "iso8859_5", "cp866", "mac_cyrillic")
TEXTS = {  # mostly the first article of the Universal Declaration of Human Rights
    "French": (
        WESTERN,
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience"
        " et doivent agir les uns envers les autres dans un esprit de fraternité. Voilà où ça mène, à Noël.",
    ),
    "Spanish": (
        WESTERN,
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia,"
        " deben comportarse fraternalmente los unos con los otros. ¿Dónde está el señor? ¡Mañana vendrá!",
    ),
    "Portuguese": (
        WESTERN,
        "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de consciência, devem"
        " agir uns para com os outros em espírito de fraternidade. Não há exceções.",
    ),
    "Italian": (
        WESTERN,
        "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di coscienza e"
        " devono agire gli uni verso gli altri in spirito di fratellanza. Perché è così, e più di così.",
    ),
    "German": (
        WESTERN,
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und"
        " sollen einander im Geiste der Brüderlichkeit begegnen. Größe und Maß hört man läuten.",
    ),
    "Swedish": (
        WESTERN,
        "Alla människor är födda fria och lika i värde och rättigheter. De har utrustats med förnuft och samvete och bör"
        " handla gentemot varandra i en anda av gemenskap. På ån låg två båtar.",
    ),
    "Finnish": (
        (*WESTERN[:2], "cp850"),
        "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu järki ja omatunto,"
        " ja heidän on toimittava toisiaan kohtaan veljeyden hengessä.",
    ),
    "Danish": (
        WESTERN,
        "Alle mennesker er født frie og lige i værdighed og rettigheder. De er udstyret med fornuft og samvittighed, og de"
        " bør handle mod hverandre i en broderskabets ånd.",
    ),
    "Polish": (
        CENTRAL,
        "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i"
        " sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    ),
    "Czech": (
        CENTRAL,
        "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím a mají spolu"
        " jednat v duchu bratrství.",
    ),
    "Hungarian": (
        CENTRAL,
        "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, ésszel és lelkiismerettel"
        " bírván, egymással szemben testvéri szellemben kell hogy viseltessenek. Először is: tűz, szűk, bőség.",
    ),
    "Croatian": (
        CENTRAL,
        "Sva ljudska bića rađaju se slobodna i jednaka u dostojanstvu i pravima. Ona su obdarena razumom i sviješću i"
        " trebaju jedna prema drugima postupati u duhu bratstva. Čovjek možda šuti.",
    ),
    "Romanian": (
        CENTRAL,
        "Toate fiinţele umane se nasc libere şi egale în demnitate şi în drepturi. Ele sunt înzestrate cu raţiune şi"
        " conştiinţă şi trebuie să se comporte unele faţă de altele în spiritul fraternităţii.",
    ),
    "Turkish": (
        ("cp1254",),
        "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve birbirlerine karşı"
        " kardeşlik zihniyeti ile hareket etmelidirler.",
    ),
    "Lithuanian": (
        ("cp1257",),
        "Visi žmonės gimsta laisvi ir lygūs savo orumu ir teisėmis. Jiems suteiktas protas ir sąžinė ir jie turi elgtis"
        " vienas kito atžvilgiu kaip broliai.",
    ),
    "Russian": (
        CYRILLIC,
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны"
        " поступать в отношении друг друга в духе братства.",
    ),
    "Ukrainian": (
        ("cp1251",),
        "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом і совістю і повинні"
        " діяти у відношенні один до одного в дусі братерства.",
    ),
    "Greek": (
        ("cp1253", "iso8859_7"),
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι με λογική"
        " και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης.",
    ),
    "Hebrew": (
        ("cp1255",),
        "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם לנהוג איש"
        " ברעהו ברוח של אחווה.",
    ),
    "Arabic": (
        ("cp1256",),
        "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا بروح الإخاء.",
    ),
    "Thai": (
        ("cp874",),
        "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
    ),
    "Japanese": (
        ("cp932", "euc_jp"),
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
        "人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
    ),
    "Chinese": (("gb18030",), "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"),
    "Chinese in Taiwan": (
        ("big5",),
        "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神互相對待。",
    ),
    "Korean": (
        ("cp949",),
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."
        " 인간은 천부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    ),
    "English with prices": (WESTERN[:2], "It cost £5 at first, then £7. See § 3 for the terms, © 1998. "),
    "English with measures": (WESTERN[:2], "Take 1½ cups and bake at 200°C, ±5°, for ¾ of an hour. "),
    "English with names": (WESTERN[:2], "Señor Muñoz met Zoë at the café, à la carte, in Zürich. "),
    "English with quotes": (WESTERN[:1], "“It’s over,” she said — ‘so’ – and left… • "),
}
ENGLISH = "The harbour was quiet in the morning, and nobody had seen the boat come in during the night. "
CASES = [(language, encoding) for language, (encodings, _) in TEXTS.items() for encoding in encodings]


def read(path, content):
    path.write_bytes(content)
    return list(formats.read(path))


@pytest.mark.parametrize(("language", "encoding"), CASES)
def test_a_text_is_read_as_it_was_written(tmp_path, language, encoding):
    """Once, fifty times over (20 kB or so), and in a long English text."""
    _, text = TEXTS[language]
    paragraphs = f"{text}\n" * 50
    for written in (text, paragraphs, (ENGLISH * 20 + "\n") * 5 + paragraphs[: len(text) * 3]):
        found = read(tmp_path / "a.txt", written.encode(encoding))
        assert found[0].text.strip() == written.strip()
        assert found[1].reason.startswith("read as ") and not found[1].bad


@pytest.mark.parametrize(("language", "encoding"), [case for case in CASES if case[0] in ("Russian", "Greek")])
def test_a_text_in_capitals_is_read_as_it_was_written(tmp_path, language, encoding):
    text = TEXTS[language][1].upper()
    assert read(tmp_path / "a.txt", text.encode(encoding))[0].text.strip() == text


def test_the_encoding_that_was_assumed_is_named(tmp_path):
    assert read(tmp_path / "a.txt", "Un café".encode("latin-1"))[1].reason == "read as cp1252"
    assert read(tmp_path / "a.csv", f"text\n{TEXTS['Russian'][1]}".encode("koi8_r"))[1].reason == "read as koi8_r"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert len(read(tmp_path / "a.txt", "Un café".encode(encoding))) == 1


def test_the_first_strange_letter_may_come_late(tmp_path):
    content = f"{ENGLISH}\n" * 20_000 + TEXTS["French"][1] + "\n"
    found = read(tmp_path / "a.md", content.encode("cp1252"))
    assert "".join(piece.text for piece in found[:-1]) == f"\n{content}".removesuffix("\n")
    assert found[-1].reason == "read as cp1252"


@pytest.mark.parametrize(("language", "encoding"), [("Japanese", "cp932"), ("Korean", "cp949"), ("Greek", "cp1253")])
def test_a_bad_byte_changes_no_other_encoding_either(tmp_path, language, encoding):
    text = f"{TEXTS[language][1]}\n".encode(encoding) * 5
    found = read(tmp_path / "a.txt", text + b"\xff\n" + text)
    assert found[0].text.count(TEXTS[language][1]) == 10


def test_what_is_no_language_is_refused(tmp_path):
    noise = bytes((37 * n * n + 11 * n) % 128 + 128 for n in range(600))
    [problem] = read(tmp_path / "a.txt", b"a" * 1000 + noise)
    assert problem.reason.startswith("binary, or text in an encoding") and problem.bad
